//! Generates the bindings with bindgen.
//!
//! The headers come from the first place that has them:
//! 1. `TRITON_INCLUDE_DIR`, a folder with `triton/core/tritonbackend.h`;
//! 2. `/opt/tritonserver/include`, the folder in NVIDIA's container;
//! 3. `include/saker_triton_abi.h`, our own declaration of the functions that we call.
//!
//! Nothing is linked: the server that opens the library provides the functions.

#![allow(
    clippy::expect_used,
    reason = "a build script ends the build with its message"
)]

use std::env;
use std::path::{Path, PathBuf};

const CONTAINER_INCLUDE: &str = "/opt/tritonserver/include";
const OWN_HEADER: &str = "include/saker_triton_abi.h";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={OWN_HEADER}");
    println!("cargo::rerun-if-env-changed=TRITON_INCLUDE_DIR");

    let builder = bindgen::Builder::default()
        .allowlist_item("TRITON(SERVER|BACKEND)_.*")
        // Exported by a backend, never called by it: a declaration here would conflict with the definitions of `triton_backend::export!`.
        .blocklist_function("TRITONBACKEND_(Initialize|Finalize|GetBackendAttribute)")
        .blocklist_function("TRITONBACKEND_Model(Instance)?(Initialize|Finalize|Execute)")
        .blocklist_function("TRITONBACKEND_ModelBatch.*")
        // Plain integers: a value that a newer server adds must not be undefined behaviour.
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(false)
        .generate_comments(false)
        .use_core();

    let builder = match real_headers() {
        Some(include) => {
            println!("cargo::rerun-if-changed={}", include.display());
            builder
                .header(
                    include
                        .join("triton/core/tritonbackend.h")
                        .display()
                        .to_string(),
                )
                // The real headers name their structs without `struct`, which only C++ accepts.
                .clang_args(["-xc++", "-std=c++17"])
                .clang_arg(format!("-I{}", include.display()))
        }
        None => builder.header(OWN_HEADER),
    };

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    builder
        .generate()
        .expect("bindgen reads the Triton headers; it needs libclang (Debian: apt-get install libclang-dev)")
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR is writable");
}

fn real_headers() -> Option<PathBuf> {
    if let Some(dir) = env::var_os("TRITON_INCLUDE_DIR").filter(|dir| !dir.is_empty()) {
        let dir = PathBuf::from(dir);
        assert!(
            has_headers(&dir),
            "TRITON_INCLUDE_DIR is '{}', which lacks triton/core/tritonbackend.h; \
             point it to Triton's include folder, or unset it to use Saker's own ABI header",
            dir.display()
        );
        return Some(dir);
    }
    let container = Path::new(CONTAINER_INCLUDE);
    has_headers(container).then(|| container.to_path_buf())
}

fn has_headers(dir: &Path) -> bool {
    dir.join("triton/core/tritonbackend.h").is_file()
}
