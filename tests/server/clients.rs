//! NVIDIA's own Python clients, unmodified, against the golden ensemble; Schemathesis against the gateway.

use std::process::Command;

use saker_testing::runtime;

use crate::{
    gateway::Fixture,
    support::{golden::golden, stage::data},
};

/// Runs one check of tests/clients/reference.py.
fn check(protocol: &str, what: &str) {
    let golden = golden();
    let port = if protocol == "grpc" {
        golden.server.grpc_port
    } else {
        golden.server.http_port
    };
    let output = Command::new(runtime::python().expect("the clients' Python"))
        .arg(runtime::workspace().join("tests/clients/reference.py"))
        .args([protocol, &format!("127.0.0.1:{port}"), what])
        .arg(data("reference/answers.json"))
        .output()
        .expect("Python runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn grpc_reproduces_every_answer() {
    check("grpc", "alone");
}

#[test]
fn http_reproduces_every_answer() {
    check("http", "alone");
}

#[test]
fn grpc_eight_at_once() {
    check("grpc", "together");
}

#[test]
fn http_eight_at_once() {
    check("http", "together");
}

#[test]
fn grpc_without_optional_inputs() {
    check("grpc", "optional");
}

#[test]
fn http_without_optional_inputs() {
    check("http", "optional");
}

#[test]
fn grpc_errors_name_the_tensor() {
    check("grpc", "errors");
}

#[test]
fn http_errors_name_the_tensor() {
    check("http", "errors");
}

/// Whatever the gateway's OpenAPI document allows and forbids, asked of the real thing: no answer is one that the document does
/// not know, and nothing breaks it.
#[test]
fn the_gateway_keeps_what_its_document_says() {
    let fixture = Fixture::start();
    let python = runtime::peers_python().expect("the Python of the programs that test ours");
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(python.with_file_name("schemathesis"))
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("{}/openapi.json", fixture.url))
        // That an item or a category is one of the shop's is more than a document can say.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--max-examples", "25", "--generation-deterministic"])
        .args(["--continue-on-failure", "--warnings", "off", "--no-color"])
        .output()
        .expect("Schemathesis runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
