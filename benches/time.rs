//! How long each kernel takes: `cargo bench -p saker-benches`.

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in saker_benches::kernels() {
        let mut kernel = make();
        criterion.bench_function(&name, |bencher| bencher.iter(&mut kernel));
    }
    criterion.final_summary();
}
