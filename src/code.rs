//! The hash over the sources that this program is built from.

/// The hash, as hexadecimal digits, for fingerprints ([`saker_prepare::up_to_date`]). `build.rs` computes it over `SOURCES` of
/// `build/code.rs`.
pub const CODE: &str = env!("SAKER_CODE");

/// The hash function that build.rs uses for the sources.
#[cfg(test)]
#[path = "../build/code.rs"]
mod code;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{CODE, code};

    fn copy(from: &Path, to: &Path) {
        if !from.is_dir() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
            return;
        }
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    }

    #[test]
    fn changed_code_has_another_fingerprint() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        // The program was built from the sources as they are.
        assert_eq!(code::hash(repository).unwrap(), CODE);

        for without in code::WITHOUT {
            assert!(repository.join(without).exists(), "{without}");
        }
        let scratch = tempfile::tempdir().unwrap();
        for source in code::SOURCES {
            copy(&repository.join(source), &scratch.path().join(source));
        }
        let hash = || code::hash(scratch.path()).unwrap();
        assert_eq!(hash(), CODE);
        let change = |file: &str| {
            let path = scratch.path().join(file);
            let before = fs::read(&path).unwrap();
            fs::write(&path, [&before[..], b"\n"].concat()).unwrap();
            let changed = hash() != CODE;
            fs::write(&path, before).unwrap();
            changed
        };
        for file in [
            "Cargo.lock",
            "crates/saker-workflow/src/kernels.rs",
            "crates/saker-train/src/lib.rs",
            "crates/saker-prepare/src/lib.rs",
            "src/commands/train.rs",
        ] {
            assert!(change(file), "{file}");
        }
        // Changes to serving code make no step run again.
        for file in [
            "crates/saker-serving/src/follower.rs",
            "src/commands/serve.rs",
        ] {
            assert!(!change(file), "{file}");
        }
        // A renamed file changes the hash too.
        let (old, new) = (
            scratch.path().join("crates/saker-prepare/src/values.rs"),
            scratch.path().join("crates/saker-prepare/src/value.rs"),
        );
        fs::rename(old, new).unwrap();
        assert_ne!(hash(), CODE);
    }
}
