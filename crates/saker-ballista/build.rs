//! Stamps the sources that the program is built from, so that `saker` can refuse one that is older than itself.

#[path = "../../build/code.rs"]
mod code;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    code::stamp(Path::new("../.."));
}
