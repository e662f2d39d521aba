//! Stamps what `saker` is built of: the version of Triton's backend API, for `saker --version`, and a hash of the sources, for the
//! fingerprints of steps.

#[path = "build/code.rs"]
mod code;

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    code::stamp(Path::new("."));
    let header = Path::new("triton-rs-sys/include/saker_triton_abi.h");
    println!("cargo::rerun-if-changed={}", header.display());
    let text = fs::read_to_string(header).unwrap_or_default();
    let number = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name));
        line.map_or_else(|| "?".to_owned(), |value| value.trim().to_owned())
    };
    let major = number("TRITONBACKEND_API_VERSION_MAJOR");
    let minor = number("TRITONBACKEND_API_VERSION_MINOR");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=SAKER_VERSION={version} (Triton backend API {major}.{minor})");
}
