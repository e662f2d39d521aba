//! A flame graph of what `perf script` prints: `scripts/bench-profile` calls this.
//!
//! Usage: perf script | flamegraph TITLE > FILE.svg

use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{self, Options};

/// Frames narrower than this percentage are left out: the file stays small enough to be read in a browser.
const NARROWEST: f64 = 0.3;

fn main() -> ExitCode {
    let title = std::env::args().nth(1).unwrap_or_default();
    match draw(title) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}; expected what `perf script` prints on standard input");
            ExitCode::FAILURE
        }
    }
}

fn draw(title: String) -> io::Result<()> {
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(io::stdin().lock()), &mut folded)?;
    let mut options = Options::default();
    options.title = title;
    options.min_width = NARROWEST;
    let mut out = io::stdout().lock();
    flamegraph::from_reader(&mut options, &folded[..], &mut out)?;
    out.flush()
}
