//! Writing outputs: in place, and only the requested ones.

use triton_backend::{Error, Response};
use triton_rs_sys as sys;
use triton_testing::fake::{Config, LoadedModel, Memory, Report, Request};

use super::scripted::{execute, on_execute, server};

fn config() -> Config {
    Config::new()
        .output("ids", "TYPE_INT32", &[-1])
        .output("scores", "TYPE_FP32", &[-1])
        .output("names", "TYPE_STRING", &[-1])
}

fn respond(
    request: Request,
    mut write: impl FnMut(&Response<'_>) -> Result<(), Error> + 'static,
) -> Report {
    execute(config(), [request], move |batch| {
        batch.respond_each(|_, response| write(response));
        Ok(())
    })
}

fn error(write: impl FnMut(&Response<'_>) -> Result<(), Error> + 'static) -> String {
    let request = Request::new()
        .output("ids")
        .output("scores")
        .output("names");
    respond(request, write).failure(0).message.clone()
}

#[test]
fn two_outputs_are_written_side_by_side() {
    let write = |response: &Response<'_>| {
        let ids = response.output::<i32>("ids", &[3])?.expect("asked for");
        let scores = response.output_at::<f32>(1, &[3])?.expect("asked for");
        assert_eq!(*ids, [0; 3], "starts as zero");
        for (n, (id, score)) in ids.iter_mut().zip(scores).enumerate() {
            *id = n as i32;
            *score = n as f32 / 2.0;
        }
        response.parameter("release", "r1")
    };
    for request in [Request::new(), Request::new().unaligned_outputs()] {
        let report = respond(request.output("scores").output("ids"), write);
        let response = report.success(0);
        assert_eq!(response.output::<i32>("ids"), (vec![0, 1, 2], vec![3]));
        assert_eq!(
            response.output::<f32>("scores"),
            (vec![0.0, 0.5, 1.0], vec![3])
        );
        assert_eq!(
            response.parameters,
            [("release".to_owned(), "r1".to_owned())]
        );
    }
}

#[test]
fn outputs_nobody_asked_for_are_not_made() {
    let report = respond(Request::new().output("scores"), |response| {
        assert!(response.wants("scores") && !response.wants("ids") && !response.wants("other"));
        assert!(response.output::<i32>("ids", &[1 << 40])?.is_none());
        response.write_strings("names", &[1], &["a"])?;
        response.write("scores", &[1, 2], &[1.0f32, 2.0])
    });
    assert_eq!(report.success(0).names(), ["scores"]);
    let report = respond(Request::new(), |response| {
        response.write("ids", &[1], &[1i32])
    });
    assert!(report.success(0).names().is_empty());
}

#[test]
fn a_request_knows_what_it_wants() {
    let report = execute(config(), [Request::new().output("ids")], |batch| {
        batch.respond_each(|request, response| {
            assert!(request.wants("ids") && !request.wants("scores"));
            response.write("ids", &[1], &[1i32])
        });
        Ok(())
    });
    report.success(0);
}

#[test]
fn strings_are_written_behind_their_lengths() {
    let report = respond(Request::new().output("names"), |response| {
        response.write_strings("names", &[2], &["", "ab"])
    });
    let names = report.success(0).raw("names").clone();
    assert_eq!(names.data_type, sys::TRITONSERVER_TYPE_BYTES);
    assert_eq!(names.bytes, [0, 0, 0, 0, 2, 0, 0, 0, b'a', b'b']);
    let report = respond(Request::new().output("names"), |response| {
        response.write_strings::<&str>("names", &[0], &[])
    });
    assert!(report.success(0).raw("names").bytes.is_empty());
}

#[test]
fn an_empty_output_is_an_output() {
    let report = respond(Request::new().output("ids"), |response| {
        assert!(
            response
                .output::<i32>("ids", &[0])?
                .expect("asked for")
                .is_empty()
        );
        Ok(())
    });
    assert_eq!(report.success(0).output::<i32>("ids"), (vec![], vec![0]));
}

#[test]
fn defects_of_a_backend_are_errors() {
    let message = error(|r| r.write("ids", &[2], &[1i32]));
    assert_eq!(
        message,
        "model 'm': output 'ids' got 1 elements for shape [2]"
    );
    let message = error(|r| r.write_strings("names", &[2], &["a"]));
    assert_eq!(
        message,
        "model 'm': output 'names' got 1 elements for shape [2]"
    );
    let message = error(|r| r.write("ids", &[1], &[1i64]));
    assert_eq!(
        message,
        "model 'm': the backend writes INT64 into output 'ids', which config.pbtxt declares as INT32"
    );
    let message = error(|r| r.write("nope", &[1], &[1i64]));
    assert_eq!(
        message,
        "model 'm': the backend writes the output 'nope'; config.pbtxt declares: 'ids', 'scores', 'names'"
    );
    assert!(error(|r| r.write_at("ids".len(), &[1], &[1i64])).contains("no output number 3"));
    let message = error(|r| {
        r.write("ids", &[1], &[1i32])?;
        r.write("ids", &[1], &[1i32])
    });
    assert_eq!(message, "model 'm': the backend writes output 'ids' twice");
    assert!(error(|r| r.output::<i32>("ids", &[-1]).map(drop)).contains("impossible shape [-1]"));
    assert!(
        error(|r| r.output::<i32>("ids", &[i64::MAX, 9]).map(drop)).contains("impossible shape")
    );
    assert!(error(|r| r.output::<i32>("ids", &[i64::MAX]).map(drop)).contains("too large"));
}

#[test]
fn an_output_that_is_asked_for_and_not_written_is_an_error() {
    let asked = || Request::new().output("ids").output("scores");
    let report = respond(asked(), |response| response.write("ids", &[1], &[1i32]));
    let failure = report.failure(0);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INTERNAL);
    assert_eq!(
        failure.message,
        "model 'm': the backend did not write the output 'scores', which the client requested"
    );
    // An output without elements is written too.
    let report = respond(asked(), |response| {
        response.write::<i32>("ids", &[0], &[])?;
        response.write::<f32>("scores", &[0], &[])
    });
    report.success(0);
}

#[test]
fn gpu_outputs_are_staged_on_the_host() {
    let request = Request::new().output("ids").output_memory(Memory::Gpu);
    // The copy to a GPU that does not exist fails; the staged memory was written nevertheless.
    let report = respond(request, |response| response.write("ids", &[2], &[1i32, 2]));
    assert!(
        report.failure(0).message.contains("GPU 0"),
        "{}",
        report.failure(0).message
    );
}

#[test]
fn every_answer_names_its_release() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    std::fs::create_dir_all(folder.join("3")).unwrap();
    std::fs::write(
        folder.join("3/release.json"),
        r#"{"format": 2, "release": "run-7"}"#,
    )
    .unwrap();
    let config = || config().output("release", "TYPE_STRING", &[1]);
    let answer = |loaded: &LoadedModel<'_>, request: Request| {
        on_execute(|batch| {
            batch.respond_each(|_, response| {
                assert!(!response.wants("release"), "not the backend's output");
                response.write("ids", &[1], &[5i32])
            });
            Ok(())
        });
        loaded.execute([request])
    };
    let server = server();
    let loaded = server.load_from("m", 3, &folder, config()).unwrap();
    for request in [Request::new(), Request::new().unaligned_outputs()] {
        let report = answer(&loaded, request.output("ids").output("release"));
        let response = report.success(0);
        assert_eq!(
            response.parameters,
            [("release".to_owned(), "run-7".to_owned())]
        );
        assert_eq!(response.raw("release").bytes, *b"\x05\0\0\0run-7");
        assert_eq!(response.raw("release").shape, [1]);
        assert_eq!(response.output::<i32>("ids"), (vec![5], vec![1]));
    }
    let report = answer(&loaded, Request::new().output("ids"));
    assert_eq!(report.success(0).names(), ["ids"], "only when asked for");

    // Without a release, the output exists but is empty.
    let loaded = server.load("m", config()).unwrap();
    let report = answer(&loaded, Request::new().output("release"));
    let response = report.success(0);
    assert!(response.parameters.is_empty());
    assert_eq!(response.raw("release").bytes, [0; 4]);
}
