//! Measures contents per second: `cargo run --release -p saker-content --example rate -- sentence MODEL_FOLDER [COUNT]`, or `… -- image
//! LIBONNXRUNTIME MODEL.onnx [OUTPUT] [COUNT]`.
//!
//! Texts are of 10 to 60 words, pictures of 256 × 256 pixels, all different.

use std::error::Error;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use saker_content::{Cache, Encoder, ImageEncoder, Pooling, SentenceEncoder, encode};

const WORDS: [&str; 16] = [
    "soft", "cotton", "shirt", "with", "a", "round", "neck", "and", "short", "sleeves", "made",
    "for", "warm", "summer", "evenings", "outside",
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |of: Option<&&str>, or: usize| of.map_or(Ok(or), |text| text.parse());
    match arguments.as_slice() {
        ["sentence", folder, rest @ ..] => {
            let text = |item: usize| {
                let words = (0..10 + item % 51).map(|word| WORDS[(item * 7 + word * word) % 16]);
                let text = words.collect::<Vec<_>>().join(" ");
                Ok(format!("{text} {item}").into_bytes())
            };
            let encoder = SentenceEncoder::open(Path::new(folder))?;
            run(encoder, count(rest.first(), 2465)?, text)
        }
        ["image", library, model, rest @ ..] => {
            let picture = |item: usize| {
                let picture = RgbImage::from_fn(256, 256, |x, y| {
                    Rgb([x as u8, y as u8, (item * 31 + (x * y) as usize / 99) as u8])
                });
                let mut file = Cursor::new(Vec::new());
                picture
                    .write_to(&mut file, ImageFormat::Png)
                    .map_err(|error| error.to_string())?;
                Ok(file.into_inner())
            };
            let (library, model) = (Path::new(library), Path::new(model));
            let output = rest.first().copied();
            let encoder = ImageEncoder::open(library, model, output, Pooling::First)?;
            run(encoder, count(rest.get(1), 64)?, picture)
        }
        _ => Err("arguments: sentence MODEL_FOLDER [COUNT] | image LIBONNXRUNTIME MODEL.onnx [OUTPUT] [COUNT]".into()),
    }
}

fn run<E: Encoder>(
    mut encoder: E,
    count: usize,
    load: impl Fn(usize) -> Result<Vec<u8>, String>,
) -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("saker-rate-{}.parquet", std::process::id()));
    let encoded = encode(
        &mut encoder,
        count,
        load,
        &mut Cache::open(&path),
        |done, of| {
            eprint!("\r{done} of {of}");
        },
    )?;
    std::fs::remove_file(path)?;
    let seconds = encoded.took.as_secs_f64();
    println!(
        "\r{} contents in {seconds:.1} s, {:.1} a second",
        encoded.encoded,
        encoded.encoded as f64 / seconds
    );
    Ok(())
}
