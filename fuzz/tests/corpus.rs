//! Every target over its seeds, over `corpus/`, and over random changes of both.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_fuzz::{TARGETS, Target, find};

/// For how long one target gets changed inputs.
const TIME: Duration = Duration::from_millis(500);

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = folder.join(target.name);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Flips, cuts, repeats, joins: a few changes at random places.
fn changed(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 127, 128, 255][random.random_range(0..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            4 => {
                let end = random.random_range(at..=bytes.len().min(at + 64));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}

/// Shows the input that a target fails on, so that it can be written down.
struct Failing<'i>(&'static str, &'i [u8]);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} fails on b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn run(target: &Target, input: &[u8]) {
    let _shown = Failing(target.name, input);
    (target.run)(input);
}

fn hunt(name: &str) {
    let target = find(name).unwrap();
    let mut inputs = (target.seeds)();
    inputs.extend(corpus(&target));
    for input in &inputs {
        run(&target, input);
    }
    run(&target, &[]);
    let mut random = StdRng::seed_from_u64(7);
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        run(&target, &changed(&inputs, &mut random));
    }
}

/// Writes the seeds into `corpus/`, where libFuzzer starts from.
#[test]
#[ignore = "writes into the repository"]
fn write_seeds() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (place, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{place:02}")), seed).unwrap();
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            hunt(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), tested);
        }
    };
}

targets! {
    tensors parameters model_config defaults release feast_key feast_value bitmap event store_url
    gateway_query gateway_events pipeline workflow npy safetensors onnx
}
