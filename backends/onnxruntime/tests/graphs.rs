//! Runs graphs as other projects export them against the fake C API, with the real ONNX Runtime.

use proptest::prelude::*;
use saker_testing::onnx::{FLOAT, Graph, INT64, STRING};
use triton_backend::entry_points;
use triton_onnxruntime::OnnxRuntime;
use triton_rs_sys as sys;
use triton_testing::fake::{self, Config, Failure, Input, Request, Server};

fn server() -> Server {
    Server::start("onnxruntime", entry_points::<OnnxRuntime>()).unwrap()
}

fn folder(graph: &Graph) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    std::fs::write(folder.path().join("1/model.onnx"), graph.model()).unwrap();
    folder
}

/// The error of a failed load.
fn refused(graph: &Graph, config: Config) -> Failure {
    let (folder, server) = (folder(graph), server());
    let loaded = server.load_from("m", 1, folder.path(), config);
    loaded.map(drop).unwrap_err()
}

/// A user's vector, and the sum of the vectors of what the user has bought.
fn history() -> Graph {
    Graph::new()
        .input("user", INT64, &["N"])
        .input("history", INT64, &["M"])
        .output("vector", FLOAT, &["N", "2"])
        .floats("users", &[2, 2], &[10.0, 20.0, 30.0, 40.0])
        .floats("items", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .integers("rows", &[1], &[0])
        .node("Gather", &["users", "user"], &["base"], &[])
        .node("Gather", &["items", "history"], &["bought"], &[])
        .node(
            "ReduceSum",
            &["bought", "rows"],
            &["sum"],
            &[("keepdims", 1)],
        )
        .node("Add", &["base", "sum"], &["vector"], &[])
}

fn history_config() -> Config {
    Config::new()
        .input("user", "TYPE_INT64", &[-1])
        .input("history", "TYPE_INT64", &[-1])
        .output("vector", "TYPE_FP32", &[-1, 2])
}

fn user_with(history: &[i64], users: &[i64]) -> Request {
    Request::new()
        .input(Input::new("user", &[users.len() as i64], users))
        .input(Input::new("history", &[history.len() as i64], history))
        .output("vector")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// An input without rows is a valid value; only the graph defines its result.
    #[test]
    fn a_history_of_any_length_has_the_graphs_answer(
        history in prop::collection::vec(0i64..3, 0..4),
        users in prop::collection::vec(0i64..2, 0..3),
    ) {
        let (folder, server) = (folder(&self::history()), server());
        let model = server.load_from("m", 1, folder.path(), history_config()).unwrap();
        let report = model.execute([user_with(&history, &users)]);
        let (found, shape) = report.success(0).output::<f32>("vector");
        let sum = |column: i64| history.iter().map(|item| 2 * item + column + 1).sum::<i64>();
        let expected: Vec<f32> = users
            .iter()
            .flat_map(|user| [20 * user + 10 + sum(0), 20 * user + 20 + sum(1)])
            .map(|value| value as f32)
            .collect();
        prop_assert_eq!(shape, vec![users.len() as i64, 2]);
        prop_assert_eq!(found, expected);
    }
}

/// Fails without rows, because it reads the first row.
fn first_row() -> Graph {
    Graph::new()
        .input("x", FLOAT, &["N", "2"])
        .integers("zero", &[1], &[0])
        .node("Gather", &["x", "zero"], &["first"], &[])
}

#[test]
fn a_graph_that_fails_without_rows_answers_without_rows_where_that_can_be_its_answer() {
    let server = server();
    let config = |rows| {
        Config::new()
            .input("x", "TYPE_FP32", &[-1, 2])
            .output("y", "TYPE_FP32", &[rows, 2])
    };
    let request = || {
        let x = Input::new::<f32>("x", &[0, 2], &[]);
        Request::new().input(x).output("y")
    };
    let open = folder(&first_row().output("y", FLOAT, &["N", "2"]).node(
        "Add",
        &["x", "first"],
        &["y"],
        &[],
    ));
    let model = server.load_from("m", 1, open.path(), config(-1)).unwrap();
    let report = model.execute([request()]);
    assert_eq!(report.success(0).output::<f32>("y"), (vec![], vec![0, 2]));
    // The config promises one row, so the request fails instead of returning a wrong answer.
    let fixed = folder(&first_row().output("y", FLOAT, &["1", "2"]).node(
        "Neg",
        &["first"],
        &["y"],
        &[],
    ));
    let model = server.load_from("m", 1, fixed.path(), config(1)).unwrap();
    let report = model.execute([request()]);
    let failure = report.failure(0);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INTERNAL);
    assert!(failure.message.contains("ONNX Runtime"), "{failure:?}");
}

fn double(rows: &str, output_rows: &str) -> Graph {
    Graph::new()
        .input("x", FLOAT, &[rows, "2"])
        .output("y", FLOAT, &[output_rows, "2"])
        .node("Add", &["x", "x"], &["y"], &[])
}

fn double_config() -> Config {
    Config::new()
        .input("x", "TYPE_FP32", &[2])
        .output("y", "TYPE_FP32", &[2])
        .max_batch_size(8)
}

#[test]
fn a_graph_without_a_batch_dimension_takes_no_batches() {
    for (rows, output_rows, says) in [
        ("1", "1", "input 'x' has the shape [1, 2]"),
        ("8", "8", "input 'x' has the shape [8, 2]"),
        ("N", "1", "output 'y' has the shape [1, 2]"),
    ] {
        let failure = refused(&double(rows, output_rows), double_config());
        assert!(
            failure.message.contains(says) && failure.message.contains("max_batch_size is 8"),
            "{failure:?}"
        );
    }
    for rows in ["N", ""] {
        let (folder, server) = (folder(&double(rows, rows)), server());
        let model = server.load_from("m", 1, folder.path(), double_config());
        let x = Input::new("x", &[3, 2], &[1.0f32; 6]);
        let report = model
            .unwrap()
            .execute([Request::new().input(x).output("y")]);
        assert_eq!(report.success(0).output::<f32>("y").1, [3, 2]);
    }
}

#[test]
fn a_config_is_completed_from_the_graph() {
    let (folder, server) = (folder(&double("N", "N")), server());
    let request = || {
        let x = Input::new("x", &[3, 2], &[1.0f32; 6]);
        Request::new().input(x).output("y")
    };
    let input_alone = Config::new().input("x", "TYPE_FP32", &[2]);
    let output_alone = Config::new().output("y", "TYPE_FP32", &[2]);
    for config in [
        Config::new(),
        Config::new().max_batch_size(16),
        input_alone,
        output_alone,
    ] {
        let config = config.auto_complete();
        let model = server.load_from("m", 1, folder.path(), config).unwrap();
        let report = model.execute([request()]);
        assert_eq!(
            report.success(0).output::<f32>("y"),
            (vec![2.0; 6], vec![3, 2])
        );
        assert_eq!(report.batch_statistics(), [3], "x has a batch dimension");
    }
    // The server decides. If it completes no config, the error names the missing tensors.
    let loaded = server.load_from("m", 1, folder.path(), Config::new());
    let message = loaded.map(drop).unwrap_err().message;
    assert!(
        message.contains("the model needs the input 'x'"),
        "{message}"
    );
}

#[test]
fn a_graph_with_fixed_dimensions_is_completed_without_batches() {
    let (folder, server) = (folder(&double("1", "1")), server());
    let config = Config::new().auto_complete();
    let model = server.load_from("m", 1, folder.path(), config).unwrap();
    let x = Input::new("x", &[1, 2], &[1.0f32; 2]);
    let report = model.execute([Request::new().input(x).output("y")]);
    assert_eq!(report.success(0).output::<f32>("y").1, [1, 2]);
    let failure = refused(
        &double("1", "1"),
        Config::new().max_batch_size(4).auto_complete(),
    );
    assert!(
        failure.message.contains("input 'x'") && failure.message.contains("max_batch_size is 4"),
        "{failure:?}"
    );
}

#[test]
fn a_scalar_is_a_tensor_of_one_element() {
    let graph = Graph::new()
        .input("x", FLOAT, &["N"])
        .input("factor", FLOAT, &[])
        .output("y", FLOAT, &[])
        .node("ReduceSum", &["x"], &["sum"], &[("keepdims", 0)])
        .node("Mul", &["sum", "factor"], &["y"], &[]);
    let (folder, server) = (folder(&graph), server());
    let written = Config::new()
        .input("x", "TYPE_FP32", &[-1])
        .input("factor", "TYPE_FP32", &[1])
        .output("y", "TYPE_FP32", &[1]);
    for config in [written, Config::new().auto_complete()] {
        let model = server.load_from("m", 1, folder.path(), config).unwrap();
        let request = Request::new()
            .input(Input::new("x", &[2], &[1.0f32, 2.0]))
            .input(Input::new("factor", &[1], &[5.0f32]))
            .output("y");
        let report = model.execute([request]);
        assert_eq!(report.success(0).output::<f32>("y"), (vec![15.0], vec![1]));
    }
}

#[test]
fn only_what_the_client_sent_is_the_clients_fault() {
    let (folder, server) = (folder(&history()), server());
    let model = server.load_from("m", 1, folder.path(), history_config());
    let model = model.unwrap();
    // The graph's table lacks the item. The runtime reports it, but cannot tell whether the client or the graph made the index.
    let report = model.execute([user_with(&[7], &[0])]);
    assert_eq!(
        report.failure(0).code,
        sys::TRITONSERVER_ERROR_INTERNAL,
        "{:?}",
        report.failure(0)
    );

    let graph = Graph::new()
        .input("a", FLOAT, &["N", "2"])
        .input("b", FLOAT, &["N", "2"])
        .output("y", FLOAT, &["N", "2"])
        .node("Add", &["a", "b"], &["y"], &[]);
    let (folder, server) = (self::folder(&graph), self::server());
    let open = Config::new()
        .input("a", "TYPE_FP32", &[-1, -1])
        .input("b", "TYPE_FP32", &[-1, -1])
        .output("y", "TYPE_FP32", &[-1, 2]);
    let model = server.load_from("m", 1, folder.path(), open).unwrap();
    for (a, b, says) in [
        ([2, 2], [3, 2], "tensor 'b' has shape [3, 2]; accepted: 2"),
        ([2, 3], [2, 3], "tensor 'a' has shape [2, 3]; accepted: 2"),
    ] {
        let tensor = |name, shape: [i64; 2]| {
            let elements = vec![0.0f32; (shape[0] * shape[1]) as usize];
            Input::new(name, &shape, &elements)
        };
        let request = Request::new().input(tensor("a", a)).input(tensor("b", b));
        let report = model.execute([request.output("y")]);
        let failure = report.failure(0);
        assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INVALID_ARG);
        assert!(failure.message.contains(says), "{failure:?}");
    }
}

/// A ranker of another project: its result for a row depends on that row alone.
fn rows() -> Graph {
    Graph::new()
        .input("x", FLOAT, &["N", "2"])
        .input("item", INT64, &["N"])
        .input("name", STRING, &["N"])
        .output("y", FLOAT, &["rows", "2"])
        .output("same", STRING, &["rows"])
        .floats("items", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .node("Gather", &["items", "item"], &["vector"], &[])
        .node("Add", &["x", "vector"], &["y"], &[])
        .node("Identity", &["name"], &["same"], &[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The number of rows per run changes no answer, for every layout of the tensors.
    #[test]
    fn rows_per_run_changes_no_answer(
        items in prop::collection::vec(0i64..3, 0..14),
        rows_per_run in 0usize..6,
        (cut, unaligned) in (0usize..200, any::<bool>()),
    ) {
        let config = Config::new()
            .input("x", "TYPE_FP32", &[-1, 2])
            .input("item", "TYPE_INT64", &[-1])
            .input("name", "TYPE_STRING", &[-1])
            .output("y", "TYPE_FP32", &[-1, 2])
            .output("same", "TYPE_STRING", &[-1])
            .parameter("rows_per_run", &rows_per_run.to_string());
        let (folder, server) = (folder(&rows()), server());
        let model = server.load_from("m", 1, folder.path(), config).unwrap();
        let count = items.len() as i64;
        let x: Vec<f32> = (0..2 * count).map(|at| at as f32 * 0.5).collect();
        let names: Vec<String> = (0..count).map(|row| "n".repeat(row as usize % 3)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut x_input = Input::new("x", &[count, 2], &x).split(&[cut.min(4 * x.len())]);
        if unaligned {
            x_input = x_input.unaligned();
        }
        let request = Request::new()
            .input(x_input)
            .input(Input::new("item", &[count], &items))
            .input(Input::strings("name", &[count], &names));
        let report = model.execute([request.output("y").output("same")]);
        let answer = report.success(0);
        let vectors = items.iter().flat_map(|item| [2 * item + 1, 2 * item + 2]);
        let expected: Vec<f32> = x.iter().zip(vectors).map(|(x, v)| x + v as f32).collect();
        prop_assert_eq!(answer.output::<f32>("y"), (expected, vec![count, 2]));
        let bytes: Vec<u8> = names
            .iter()
            .flat_map(|name| [&(name.len() as u32).to_le_bytes()[..], name.as_bytes()].concat())
            .collect();
        prop_assert_eq!(&answer.raw("same").bytes, &bytes);
        prop_assert_eq!(&answer.raw("same").shape, &[count]);
    }
}

#[test]
fn a_graph_whose_rows_cannot_be_split_is_refused_with_rows_per_run() {
    let scalar = Graph::new()
        .input("x", FLOAT, &["N", "2"])
        .input("factor", FLOAT, &[])
        .output("y", FLOAT, &["N", "2"])
        .node("Mul", &["x", "factor"], &["y"], &[]);
    let scalar_config = fixed_config(-1).input("factor", "TYPE_FP32", &[1]);
    for (graph, config, says) in [
        (history(), history_config(), "input 'history'"),
        (double("4", "4"), fixed_config(4), "input 'x'"),
        (
            first_row()
                .output("y", FLOAT, &["1", "2"])
                .node("Neg", &["first"], &["y"], &[]),
            fixed_config(-1),
            "output 'y'",
        ),
        (scalar, scalar_config, "input 'factor'"),
    ] {
        let failure = refused(&graph, config.clone().parameter("rows_per_run", "2"));
        assert!(
            failure.message.contains("rows_per_run") && failure.message.contains(says),
            "{failure:?}"
        );
        // 0 disables splitting.
        let (folder, server) = (folder(&graph), server());
        let config = config.parameter("rows_per_run", "0");
        server.load_from("m", 1, folder.path(), config).unwrap();
    }
}

fn fixed_config(rows: i64) -> Config {
    Config::new()
        .input("x", "TYPE_FP32", &[rows, 2])
        .output("y", "TYPE_FP32", &[-1, 2])
}

#[test]
fn rows_that_only_the_graph_can_match_are_not_split() {
    // The dimensions have no names, so each row of w may apply to every row of x.
    let sum = Graph::new()
        .input("x", FLOAT, &["", "2"])
        .input("w", FLOAT, &["", "2"])
        .output("y", FLOAT, &["", "2"])
        .node("Add", &["x", "w"], &["y"], &[]);
    let config = fixed_config(-1)
        .input("w", "TYPE_FP32", &[-1, 2])
        .parameter("rows_per_run", "2");
    let (folder, server) = (self::folder(&sum), self::server());
    let model = server.load_from("m", 1, folder.path(), config).unwrap();
    for w in [1, 5] {
        let request = Request::new()
            .input(Input::new("x", &[5, 2], &[1.0f32; 10]))
            .input(Input::new("w", &[w, 2], &vec![2.0f32; 2 * w as usize]));
        let report = model.execute([request.output("y")]);
        assert_eq!(
            report.success(0).output::<f32>("y"),
            (vec![3.0; 10], vec![5, 2])
        );
    }
    // Each run returns a different number of rows than it received. Joined, they would not have the order of a single run.
    let twice = Graph::new()
        .input("x", FLOAT, &["N", "2"])
        .output("y", FLOAT, &["", "2"])
        .node("Neg", &["x"], &["minus"], &[])
        .node("Concat", &["x", "minus"], &["y"], &[("axis", 0)]);
    let (folder, server) = (self::folder(&twice), self::server());
    let config = fixed_config(-1).parameter("rows_per_run", "2");
    let model = server.load_from("m", 1, folder.path(), config).unwrap();
    let request = |rows: i64| {
        let x = Input::new("x", &[rows, 2], &vec![1.0f32; 2 * rows as usize]);
        Request::new().input(x).output("y")
    };
    let report = model.execute([request(2), request(5)]);
    assert_eq!(report.success(0).output::<f32>("y").1, [4, 2]);
    let failure = report.failure(1);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INTERNAL);
    assert!(
        failure.message.contains("output 'y'") && failure.message.contains("rows_per_run"),
        "{failure:?}"
    );
}

#[test]
fn an_error_about_a_parameter_names_it() {
    let (folder, server) = (folder(&history()), server());
    fake::parameters_are_named(|key, value| {
        let config = history_config().parameter(key, value);
        server.load_from("m", 1, folder.path(), config).map(drop)
    });
}
