//! Tests the backend against the fake C API, with the reference's tables.

use std::path::{Path, PathBuf};

use triton_embedding_lookup::EmbeddingLookup;
use triton_testing::fake::{self, Config, Input, Request, Server};

const IMAGE: &str = "item_image_embeddings";
const TEXT: &str = "item_description_embeddings";

fn server() -> Server {
    Server::start(
        "embedding_lookup",
        triton_backend::entry_points::<EmbeddingLookup>(),
    )
    .unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/reference")
        .join(name)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("1");
    std::fs::create_dir(&version).unwrap();
    for (from, to) in [("image", IMAGE), ("text", TEXT)] {
        let from = golden(&format!("lookup_embeddings_{from}.npy"));
        std::fs::copy(from, version.join(format!("{to}.npy"))).unwrap();
    }
    folder
}

fn config() -> Config {
    Config::new()
        .input("item_id", "TYPE_INT32", &[-1])
        .output(IMAGE, "TYPE_FP32", &[-1, 64])
        .output(TEXT, "TYPE_FP32", &[-1, 64])
}

fn request(codes: &[i32]) -> Request {
    Request::new()
        .input(Input::new("item_id", &[codes.len() as i64], codes))
        .output(IMAGE)
        .output(TEXT)
}

#[test]
fn rows_of_each_table_by_code() {
    let (folder, server) = (folder(), server());
    let model = server
        .load_from("lookup", 1, folder.path(), config())
        .unwrap();
    let report = model.execute([
        request(&[3, 702, 3]),
        request(&[0, 703, -1, i32::MAX, i32::MIN]),
        request(&[]),
        request(&vec![5; 10_000]),
    ]);
    let (image, shape) = report.success(0).output::<f32>(IMAGE);
    assert_eq!(shape, [3, 64]);
    assert_eq!(image[..64], image[128..]);
    assert_ne!(image[..64], image[64..128]);
    assert_ne!(report.success(0).output::<f32>(TEXT).0, image);
    // the golden file itself: 128 bytes of header, then rows of 64 little-endian floats
    let bytes = std::fs::read(golden("lookup_embeddings_image.npy")).unwrap();
    let value = |row: usize, column: usize| {
        let at = 128 + (row * 64 + column) * 4;
        f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    for column in 0..64 {
        assert_eq!(
            (image[column], image[64 + column]),
            (value(3, column), value(702, column))
        );
    }
    assert_eq!(
        report.success(1).output::<f32>(IMAGE),
        (vec![0.0; 5 * 64], vec![5, 64])
    );
    assert_eq!(report.success(2).output::<f32>(TEXT), (vec![], vec![0, 64]));
    assert_eq!(report.success(3).output::<f32>(TEXT).1, [10_000, 64]);
}

#[test]
fn a_config_that_cannot_work_does_not_load() {
    let (folder, server) = (folder(), server());
    for (config, says) in [
        (config().output("more", "TYPE_FP32", &[-1, 64]), "more.npy"),
        (
            config().output("a/b", "TYPE_FP32", &[-1, 64]),
            "without slashes",
        ),
        (config().input("more", "TYPE_INT32", &[-1]), "one input"),
        (
            config().parameter("TABLE", "x"),
            "unknown parameter 'TABLE'",
        ),
        (
            Config::new().input("item_id", "TYPE_INT32", &[-1]).output(
                IMAGE,
                "TYPE_FP32",
                &[-1, 32],
            ),
            "rows of 32 values",
        ),
    ] {
        let failure = server
            .load_from("lookup", 1, folder.path(), config)
            .unwrap_err();
        assert!(failure.message.contains(says), "{}", failure.message);
    }
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let (server, folder) = (server(), folder());
    fake::parameters_are_named(|key, value| {
        let config = config().parameter(key, value);
        server
            .load_from("lookup", 1, folder.path(), config)
            .map(drop)
    });
}
