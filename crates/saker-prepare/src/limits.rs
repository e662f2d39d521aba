//! What the work on interactions may use of this machine, as arguments.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags)]

use clap::Args;
use saker_bulk::Settings;

/// Memory and threads of a command that reads interactions.
#[derive(Args, Clone, Copy, Debug)]
pub struct Limits {
    /// Memory for sorting, joining and counting interactions, in MiB; larger data spill to disk. Users and items need memory in addition
    #[arg(long, value_name = "MIB", env = "SAKER_MEMORY_MIB", default_value_t = 768,
        value_parser = clap::value_parser!(u64).range(64..))]
    memory_mib: u64,
    /// Number of threads that do this [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
}

impl Limits {
    /// The settings of [`saker_bulk`] with these limits.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        Settings {
            memory_bytes: (self.memory_mib << 20) as usize,
            threads: self.threads.map_or(default.threads, |count| count as usize),
            ..default
        }
    }
}
