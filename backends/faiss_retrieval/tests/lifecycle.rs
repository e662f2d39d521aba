//! Tests the backend against the fake C API.

use saker_index::{Index, Metric};
use triton_faiss_retrieval::FaissRetrieval;
use triton_testing::fake::{self, Config, Input, Request, Server};

fn server() -> Server {
    Server::start(
        "faiss_retrieval",
        triton_backend::entry_points::<FaissRetrieval>(),
    )
    .unwrap()
}

/// Unit vectors along 4 axes with ids 10, 20, 30 and `last`.
fn folder(factory: &str, last: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    let mut vectors = [0.0; 16];
    for axis in 0..4 {
        vectors[axis * 5] = 1.0;
    }
    Index::build(
        factory,
        4,
        Metric::InnerProduct,
        &vectors,
        &[10, 20, 30, last],
    )
    .unwrap()
    .write(&folder.path().join("1/index.faiss"))
    .unwrap();
    folder
}

fn config(k: &str) -> Config {
    Config::new()
        .input("output_1", "TYPE_FP32", &[-1, 4])
        .output("candidate_ids", "TYPE_INT32", &[-1])
        .parameter("RETRIEVAL_TOPK", k)
}

fn request(queries: &[[f32; 4]]) -> Request {
    let flat = queries.concat();
    Request::new()
        .input(Input::new("output_1", &[queries.len() as i64, 4], &flat))
        .output("candidate_ids")
}

#[test]
fn every_request_gets_its_own_neighbours_from_one_search() {
    let (folder, server) = (folder("Flat", 40), server());
    let model = server
        .load_from("faiss", 1, folder.path(), config("2"))
        .unwrap();
    let requests = || {
        [
            request(&[[0.0, 3.0, 2.0, 1.0]]),
            request(&[[4.0, 0.0, 0.0, 1.0], [0.0, 0.0, 5.0, 4.0]]),
            request(&[]),
            request(&[[f32::NAN, 0.0, 0.0, 0.0]]),
            request(&[[0.0, f32::INFINITY, 0.0, 0.0]]),
            request(&[[0.5, 0.0, 9.0, 0.0]]),
        ]
    };
    let together = model.execute(requests());
    let ids = |index: usize| together.success(index).output::<i32>("candidate_ids");
    assert_eq!(ids(0), (vec![20, 30], vec![2]));
    assert_eq!(ids(1), (vec![10, 40, 30, 40], vec![4]));
    assert_eq!(ids(2), (vec![], vec![0]));
    assert!(together.failure(3).message.contains("holds NaN in row 0"));
    assert!(together.failure(4).message.contains("holds inf in row 0"));
    assert_eq!(ids(5), (vec![30, 10], vec![2]));
    for (index, request) in requests().into_iter().enumerate() {
        if ![3, 4].contains(&index) {
            let alone = model.execute([request]);
            assert_eq!(alone.success(0).output::<i32>("candidate_ids"), ids(index));
        }
    }
}

#[test]
fn fewer_neighbours_than_asked_for() {
    let (folder, server) = (folder("Flat", 40), server());
    let model = server
        .load_from("faiss", 1, folder.path(), config("300"))
        .unwrap();
    let report = model.execute([request(&[[4.0, 3.0, 2.0, 1.0]])]);
    assert_eq!(
        report.success(0).output::<i32>("candidate_ids"),
        (vec![10, 20, 30, 40], vec![4])
    );
    drop((model, folder));

    // probing one of several lists finds fewer items than requested
    let folder = self::folder("IVF2,Flat", 40);
    let config = || config("4").parameter("SEARCH_PARAMETERS", "nprobe=1");
    let model = server
        .load_from("faiss", 1, folder.path(), config())
        .unwrap();
    let query = [4.0, 0.0, 0.0, 0.0];
    let report = model.execute([request(&[query]), request(&[query, query])]);
    let (one, _) = report.success(0).output::<i32>("candidate_ids");
    assert!(one.len() < 4 && !one.contains(&-1), "{one:?}");
    let (two, shape) = report.success(1).output::<i32>("candidate_ids");
    assert_eq!(shape, [8]);
    for row in two.chunks(4) {
        assert_eq!(row[..one.len()], one);
        assert!(row[one.len()..].iter().all(|id| *id == -1));
    }
}

#[test]
fn with_a_batch_dimension_answers_are_rows() {
    let (folder, server) = (folder("Flat", 40), server());
    let config = Config::new()
        .input("output_1", "TYPE_FP32", &[4])
        .output("candidate_ids", "TYPE_INT64", &[-1])
        .parameter("RETRIEVAL_TOPK", "2")
        .max_batch_size(8);
    let model = server.load_from("faiss", 1, folder.path(), config).unwrap();
    let report = model.execute([request(&[[4.0, 0.0, 0.0, 1.0], [0.0, 0.0, 5.0, 4.0]])]);
    assert_eq!(
        report.success(0).output::<i64>("candidate_ids"),
        (vec![10, 40, 30, 40], vec![2, 2])
    );
}

#[test]
fn ids_beyond_the_outputs_type_are_an_error() {
    let (folder, server) = (folder("Flat", 1 << 40), server());
    let model = server
        .load_from("faiss", 1, folder.path(), config("1"))
        .unwrap();
    let report = model.execute([
        request(&[[0.0, 0.0, 0.0, 1.0]]),
        request(&[[1.0, 0.0, 0.0, 0.0]]),
    ]);
    assert!(report.failure(0).message.contains("TYPE_INT64"));
    report.success(1);
}

#[test]
fn what_does_not_fit_fails_the_load_or_the_request() {
    let (folder, server) = (folder("Flat", 40), server());
    for (config, says) in [
        (config("0"), "RETRIEVAL_TOPK = '0'"),
        (config("-1"), "RETRIEVAL_TOPK"),
        (
            config("2").parameter("SEARCH_PARAMETERS", "nprobe=3"),
            "nprobe=3",
        ),
        (config("2").parameter("THREADS", "0"), "THREADS"),
        (
            config("2").parameter("NPROBE", "3"),
            "unknown parameter 'NPROBE'",
        ),
        (
            config("2").output("more", "TYPE_INT32", &[-1]),
            "one output",
        ),
        (
            Config::new()
                .input("q", "TYPE_FP32", &[-1, 8])
                .output("ids", "TYPE_INT32", &[-1]),
            "8 values per query",
        ),
    ] {
        let failure = server
            .load_from("faiss", 1, folder.path(), config)
            .unwrap_err();
        assert!(failure.message.contains(says), "{}", failure.message);
    }
    let nowhere = server.load("faiss", config("2")).unwrap_err();
    assert!(
        nowhere.message.contains("index.faiss"),
        "{}",
        nowhere.message
    );

    let open = Config::new()
        .input("output_1", "TYPE_FP32", &[-1, -1])
        .output("candidate_ids", "TYPE_INT32", &[-1]);
    let model = server.load_from("faiss", 1, folder.path(), open).unwrap();
    let wrong = Request::new()
        .input(Input::new("output_1", &[2, 3], &[0.0f32; 6]))
        .output("candidate_ids");
    let report = model.execute([wrong, request(&[[1.0, 0.0, 0.0, 0.0]])]);
    assert!(report.failure(0).message.contains("accepted: [queries, 4]"));
    report.success(1);
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let (server, folder) = (server(), folder("Flat", 9));
    fake::parameters_are_named(|key, value| {
        let config = config("2").parameter(key, value);
        server
            .load_from("faiss", 1, folder.path(), config)
            .map(drop)
    });
}
