//! One target under libFuzzer: `SAKER_FUZZ_TARGET=feast_key saker-fuzz [libFuzzer's options] [folders of inputs]`.
//! `scripts/fuzz` builds and runs it.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use saker_fuzz::{Target, find};

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("SAKER_FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(2);
        })
    });
    (target.run)(data);
});
