//! `triton_testing::server` with the installed Triton.

use saker_testing::runtime;
use triton_testing::repository::Repository;
use triton_testing::server::TritonServer;

fn empty() -> (Repository, TritonServer) {
    let repository = Repository::new().unwrap();
    let server = TritonServer::builder()
        .program(runtime::tritonserver().unwrap())
        .repository(repository.path())
        .backends(repository.path())
        .start()
        .unwrap();
    (repository, server)
}

#[test]
fn an_unknown_model_is_the_servers_error() {
    let (_repository, server) = empty();
    let error = server.load("absent").unwrap_err();
    assert!(error.message.contains("absent"), "{error}");
    let error = server.infer("absent", &[], &[]).unwrap_err();
    assert!(error.status >= 400, "{error}");
    assert!(server.metrics().unwrap().contains("nv_cpu_utilization"));
    assert!(server.is_alive());
    assert!(server.log().contains("Started HTTPService"));
}

#[test]
fn a_server_ends_when_asked_and_when_killed() {
    let (_repository, server) = empty();
    server.stop().unwrap();
    assert!(!server.is_alive());
    let (_repository, server) = empty();
    server.kill();
    assert!(!server.is_alive());
}
