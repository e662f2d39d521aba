//! Stamps the sources that the program is built from, so that `saker` can refuse one that is older than itself.

#[path = "../../build/code.rs"]
#[allow(dead_code)]
mod code;

use std::path::Path;

fn main() {
    let repository = Path::new("../..");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../build/code.rs");
    for source in code::SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            repository.join(source).display()
        );
    }
    match code::hash(repository) {
        Ok(hash) => println!("cargo::rustc-env=SAKER_CODE={hash}"),
        Err(error) => println!("cargo::error=cannot read the sources to hash them: {error}"),
    }
}
