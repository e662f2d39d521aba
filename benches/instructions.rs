//! How many instructions each kernel takes: one run of it, which `scripts/bench-kernels` puts under callgrind. The time of a kernel
//! changes with the machine and its neighbours; this number does not.
//!
//! Usage: `instructions [KERNEL]`; without a name it lists them.

use std::hint::black_box;
use std::process::ExitCode;

/// Runs before the one that counts: caches and buffers grow.
const WARM_UP: usize = 5;

fn main() -> ExitCode {
    let kernels = saker_benches::kernels();
    let Some(name) = std::env::args().nth(1) else {
        kernels.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, make)) = kernels.into_iter().find(|(known, _)| *known == name) else {
        eprintln!("error: there is no kernel '{name}'; without an argument they are listed");
        return ExitCode::FAILURE;
    };
    let mut kernel = make();
    for _ in 0..WARM_UP {
        kernel();
    }
    counted(&mut kernel);
    ExitCode::SUCCESS
}

/// Callgrind counts what happens in here.
#[inline(never)]
fn counted(kernel: &mut saker_benches::Kernel) {
    black_box(kernel)();
}
