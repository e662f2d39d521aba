//! A hash over the sources of everything that a step with a fingerprint may run.
//!
//! `build.rs`, that of `crates/saker-ballista` and the tests of `src/code.rs` include this file.

#![allow(dead_code, reason = "each of them uses a part")]

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What the hash covers, relative to the repository: the offline crates, the command line, and the versions of all others.
pub(crate) const SOURCES: [&str; 16] = [
    "Cargo.lock",
    "crates/saker-assemble/src",
    "crates/saker-bulk/src",
    "crates/saker-content/src",
    "crates/saker-contract/src",
    "crates/saker-dataset/src",
    "crates/saker-index/src",
    "crates/saker-models/src",
    "crates/saker-offline/src",
    "crates/saker-pipeline/src",
    "crates/saker-prepare/src",
    "crates/saker-serving/src",
    "crates/saker-tables/src",
    "crates/saker-train/src",
    "crates/saker-workflow/src",
    "src",
];

/// Parts of [`SOURCES`] that no stamped step runs. A file that is missing here costs a step that is run again; a file too many
/// would leave an old result in place.
pub(crate) const WITHOUT: [&str; 17] = [
    "crates/saker-serving/src/bin",
    "crates/saker-serving/src/control.rs",
    "crates/saker-serving/src/counters.rs",
    "crates/saker-serving/src/follower.rs",
    "crates/saker-serving/src/prepared_tables.rs",
    "crates/saker-serving/src/programs",
    "crates/saker-serving/src/registry",
    "crates/saker-serving/src/running.rs",
    "src/commands/explain.rs",
    "src/commands/fetch.rs",
    "src/commands/prune.rs",
    "src/commands/publish.rs",
    "src/commands/recommend.rs",
    "src/commands/serve.rs",
    "src/commands/simulate.rs",
    "src/commands/status.rs",
    "src/commands/stop.rs",
];

/// Sets `SAKER_CODE` to the hash for the crate of this build script, which cargo runs again when a source changes. `repository` is
/// relative to the crate's folder.
pub(crate) fn stamp(repository: &Path) {
    for file in ["build/code.rs"].iter().chain(&SOURCES) {
        println!(
            "cargo::rerun-if-changed={}",
            repository.join(file).display()
        );
    }
    match hash(repository) {
        Ok(hash) => println!("cargo::rustc-env=SAKER_CODE={hash}"),
        Err(error) => println!("cargo::error=cannot read the sources to hash them: {error}"),
    }
}

/// The hash, as hexadecimal digits.
pub(crate) fn hash(repository: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        let mut files = Vec::new();
        list(repository, Path::new(source), &mut files)?;
        files.sort();
        for file in files {
            let content = fs::read(repository.join(&file))?;
            let name = file.as_os_str().as_encoded_bytes();
            for part in [name, &content] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn list(repository: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if WITHOUT.iter().any(|without| path == Path::new(without)) {
        return Ok(());
    }
    let place = repository.join(path);
    if !place.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&place)? {
        list(repository, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}
