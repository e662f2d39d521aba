//! The example on the fake of Triton's C API, as docs/writing-a-backend.md shows it.

use triton_scale::Scale;
use triton_testing::fake::{Config, Input, Request, Server};

fn config() -> Config {
    Config::new()
        .input("x", "TYPE_FP32", &[-1])
        .output("y", "TYPE_FP32", &[-1])
        .parameter("FACTOR", "2")
}

fn server() -> Server {
    Server::start("scale", triton_backend::entry_points::<Scale>()).unwrap()
}

#[test]
fn multiplies_by_the_factor() {
    let server = server();
    let model = server.load("double", config()).unwrap();
    let request = Request::new()
        .input(Input::new("x", &[2], &[1.0f32, 3.0]))
        .output("y");
    let report = model.execute([request]);
    assert_eq!(
        report.success(0).output::<f32>("y"),
        (vec![2.0, 6.0], vec![2])
    );
}

#[test]
fn refuses_what_it_cannot_do() {
    let message = |config| server().load("double", config).unwrap_err().message;
    assert_eq!(
        message(config().parameter("FACTR", "2")),
        "model 'double': unknown parameter 'FACTR'; accepted: FACTOR"
    );
    assert_eq!(
        message(config().parameter("FACTOR", "two")),
        "model 'double': parameter 'FACTOR' is 'two'; accepted: a number"
    );
    assert!(message(config().input("z", "TYPE_FP32", &[-1])).contains("the input 'z'"));
}
