//! Loading: version, parameters, tensors, release, and errors and panics during it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use triton_backend::{DataType, Error, LOWEST_API, Signature, entry_points};
use triton_rs_sys as sys;
use triton_testing::fake::{Config, Request, Server, set_api_version};

use super::scripted::{
    Scripted, config, dropped, load_error, on_complete, on_execute, on_instance, on_load, server,
    signature,
};

#[test]
fn an_old_server_is_refused_with_both_versions() {
    let start = |major, minor| {
        set_api_version(major, minor);
        Server::start("scripted", entry_points::<Scripted>()).map(drop)
    };
    let (major, minor) = LOWEST_API;
    start(major, minor).unwrap();
    start(major, minor + 9).unwrap();
    let failure = start(major, minor - 1).unwrap_err();
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_UNSUPPORTED);
    assert!(
        failure
            .message
            .contains(&format!("backend API {major}.{minor}"))
            && failure
                .message
                .contains(&format!("this server has {major}.{}", minor - 1)),
        "{}",
        failure.message
    );
    start(major + 1, minor).unwrap_err();
}

#[test]
fn instance_and_model_are_dropped_in_this_order() {
    dropped();
    drop(server().load("m", config()).unwrap());
    assert_eq!(dropped(), ["instance", "model"]);
}

#[test]
fn parameters_are_checked() {
    let failure = load_error(config().parameter("TOPP", "1"));
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INVALID_ARG);
    assert_eq!(
        failure.message,
        "model 'm': unknown parameter 'TOPP'; accepted: TOPK"
    );
    let failure = load_error(config().parameter("TOPK", "-1"));
    assert_eq!(
        failure.message,
        "model 'm': parameter 'TOPK' is '-1'; accepted: a whole number from 0 to 65535"
    );
    server().load("m", config().parameter("TOPK", "7")).unwrap();
}

#[test]
fn declared_tensors_are_checked() {
    let message = |expected: Signature| {
        signature(expected);
        load_error(config()).message
    };
    let float = &[DataType::Fp32];
    assert_eq!(
        message(
            Signature::new()
                .input("x", float)
                .input("id", &[DataType::Int32, DataType::Int64])
        ),
        "model 'm': config.pbtxt must declare the input 'id' (INT32, INT64); it declares: 'x'"
    );
    assert_eq!(
        message(
            Signature::new()
                .input("x", float)
                .output("y", &[DataType::Bool])
        ),
        "model 'm': config.pbtxt declares the output 'y' as FP32; accepted: BOOL"
    );
    assert_eq!(
        message(
            Signature::new()
                .input("x", float)
                .optional_output("z", float)
        ),
        "model 'm': config.pbtxt declares the output 'y', which this backend does not know; accepted: 'z'"
    );
    assert_eq!(
        message(
            Signature::new()
                .optional_input("x", &[DataType::Bytes])
                .other_outputs(float)
        ),
        "model 'm': config.pbtxt declares the input 'x' as FP32; accepted: BYTES"
    );
    signature(
        Signature::new()
            .input("x", float)
            .optional_input("id", float)
            .other_outputs(float),
    );
    server().load("m", config()).unwrap();
}

#[test]
fn an_unknown_data_type_is_named() {
    let failure = load_error(Config::new().input("x", "TYPE_FP4", &[-1]));
    assert_eq!(
        failure.message,
        "model 'm': input 'x' has the unknown data type 'TYPE_FP4'"
    );
}

#[test]
fn errors_and_panics_fail_the_load() {
    dropped();
    on_load(|_| Err(Error::not_found("no model.bin")));
    let failure = load_error(config());
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_NOT_FOUND);
    assert_eq!(failure.message, "model 'm': no model.bin");
    assert_eq!(
        load_error(config().parameter("TOPK", "1000")).message,
        "model 'm': the backend panicked: topk 1000 panics"
    );
    assert!(dropped().is_empty(), "nothing was loaded");

    on_instance(Err(Error::unavailable("no memory")));
    assert_eq!(load_error(config()).message, "model 'm': no memory");
    assert_eq!(dropped(), ["model"]);
    on_instance(Err(Error::internal("panic")));
    assert_eq!(
        load_error(config()).message,
        "model 'm': the backend panicked: no instance today"
    );
    assert_eq!(dropped(), ["model"]);
    server().load("m", config()).unwrap();
}

#[test]
fn the_context_says_where_the_model_lies() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    let expected = folder.clone();
    on_load(move |context| {
        assert_eq!((context.name(), context.version()), ("m", 4));
        assert_eq!(context.repository(), expected);
        assert_eq!(context.version_dir(), expected.join("4"));
        assert_eq!(context.release(), None);
        let config = context.config();
        assert_eq!(config.max_batch_size(), 0);
        let x = config.input("x")?;
        assert_eq!(
            (x.data_type, x.dims.as_slice(), x.optional),
            (DataType::Fp32, &[-1][..], false)
        );
        assert_eq!(config.output_index("y"), Some(0));
        assert_eq!(
            config.output("x").unwrap_err().message(),
            "config.pbtxt has no output 'x'; its outputs: 'y'"
        );
        Ok(())
    });
    server().load_from("m", 4, &folder, config()).unwrap();
}

#[test]
fn a_mix_of_releases_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    fs::create_dir_all(folder.join("1")).unwrap();
    let release = |text: &str| fs::write(folder.join("1/release.json"), text).unwrap();
    let releases = |text: &str| fs::write(root.path().join("releases.json"), text).unwrap();
    let load = || server().load_from("m", 1, &folder, config()).map(drop);

    // SHA-256 of an empty file.
    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::write(folder.join("1/x.bin"), "").unwrap();
    release(&format!(
        r#"{{"format": 1, "release": "A", "files": {{"x.bin": "{HASH}"}}}}"#
    ));
    on_load(|context| {
        let release = context.release().expect("a release");
        assert_eq!(
            (release.id.as_str(), release.files["x.bin"].as_str()),
            ("A", HASH)
        );
        Ok(())
    });
    load().unwrap();
    releases(r#"{"format": 1, "releases": {"1": "A", "2": "B"}}"#);
    load().unwrap();
    fs::write(folder.join("1/x.bin"), "x").unwrap();
    let message = load().unwrap_err().message;
    assert!(message.contains("x.bin is damaged"), "{message}");
    fs::remove_file(folder.join("1/x.bin")).unwrap();
    let message = load().unwrap_err().message;
    assert!(message.contains("x.bin is missing"), "{message}");
    fs::write(folder.join("1/x.bin"), "").unwrap();
    for (listed, said) in [
        (r#"{"2": "B", "3": "A"}"#, "listed: 2, 3;"),
        ("{}", "listed: no version;"),
    ] {
        releases(&format!(r#"{{"format": 1, "releases": {listed}}}"#));
        let message = load().unwrap_err().message;
        assert!(
            message.starts_with("model 'm': version 1 holds release A, but ")
                && message.contains("releases.json does not list version 1")
                && message.contains(said),
            "{message}"
        );
    }
    releases(r#"{"format": 1, "releases": {"1": "B"}}"#);
    let message = load().unwrap_err().message;
    assert!(
        message.starts_with(
            "model 'm': version 1 holds release A, but the repository serves release B as version 1"
        ),
        "{message}"
    );
    releases(r#"{"format": 2, "releases": {}}"#);
    assert!(
        load()
            .unwrap_err()
            .message
            .contains("has format 2; this version reads format 1")
    );
    release("{");
    assert!(
        load()
            .unwrap_err()
            .message
            .contains("release.json is not a release file")
    );
}

/// A file too large to be checked before the model serves: half a gigabyte and a byte of zeros, in a sparse file.
#[test]
fn a_large_damaged_file_ends_the_answers() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    fs::create_dir_all(folder.join("1")).unwrap();
    let table = fs::File::create(folder.join("1/table.npy")).unwrap();
    table.set_len((1 << 29) + 1).unwrap();
    let hash = "0".repeat(64);
    let release = format!(r#"{{"format": 2, "release": "A", "files": {{"table.npy": "{hash}"}}}}"#);
    fs::write(folder.join("1/release.json"), release).unwrap();
    let server = server();
    let loaded = server.load_from("m", 1, &folder, config()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    on_execute(|batch| {
        batch.respond_each(|_, response| response.write("y", &[1], &[1f32]));
        Ok(())
    });
    let failure = loop {
        let report = loaded.execute([Request::new().output("y")]);
        if let Err(failure) = report.answer(0) {
            break failure.message.clone();
        }
        assert!(Instant::now() < deadline, "the damage is never found");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(failure.contains("table.npy is damaged"), "{failure}");
}

#[test]
fn a_release_brings_its_own_parameters() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    fs::create_dir_all(folder.join("2")).unwrap();
    let release = |text: &str| fs::write(folder.join("2/release.json"), text).unwrap();
    let load = |config| server().load_from("m", 2, &folder, config).map(drop);

    release(r#"{"format": 2, "release": "B", "parameters": {"TOPK": "1000", "OTHER": null}}"#);
    let both = || config().parameter("TOPK", "7").parameter("OTHER", "x");
    // The model's script panics on a topk of 1000, so the panic shows that the release's value was parsed.
    let message = load(both()).unwrap_err().message;
    assert!(message.contains("topk 1000 panics"), "{message}");

    release(r#"{"format": 2, "release": "B", "parameters": {"OTHER": null}}"#);
    on_load(|context| {
        let parameters = context.config().parameters();
        assert_eq!(parameters["TOPK"], "7", "what the release leaves out stays");
        assert!(!parameters.contains_key("OTHER"));
        Ok(())
    });
    load(both()).unwrap();
    release(r#"{"format": 2, "release": "B"}"#);
    let message = load(both()).unwrap_err().message;
    assert!(message.contains("OTHER"), "{message}");
    release(r#"{"format": 2, "release": "B", "parameters": {"TOPK": "many"}}"#);
    let message = load(config()).unwrap_err().message;
    assert!(
        message.contains("TOPK") && message.contains("many"),
        "{message}"
    );
    release(r#"{"format": 3, "release": "B"}"#);
    let message = load(config()).unwrap_err().message;
    assert!(
        message.contains("has format 3; this version reads formats 1 to 2"),
        "{message}"
    );
}

#[test]
fn a_backend_completes_a_config_where_the_server_lets_it() {
    let complete = |mut json: serde_json::Value, default: usize| {
        json["max_batch_size"] = default.into();
        json["input"] = serde_json::json!([{"name": "z", "data_type": "TYPE_FP32", "dims": [3]}]);
        Ok(Some(json))
    };
    on_complete(complete);
    on_load(|context| {
        let config = context.config();
        assert_eq!(config.max_batch_size(), 4, "the server's default");
        assert_eq!(config.input("z")?.dims, [3]);
        assert_eq!(config.parameters()["TOPK"], "7", "the rest stays");
        Ok(())
    });
    // The SDK compares the signature with the config that the backend has completed.
    signature(
        Signature::new()
            .input("z", &[DataType::Fp32])
            .other_outputs(&[DataType::Fp32]),
    );
    let config = || config().parameter("TOPK", "7");
    server().load("m", config().auto_complete()).unwrap();

    on_complete(|_, _| panic!("the server does not allow it"));
    on_load(|context| context.config().input("x").map(drop));
    server().load("m", config()).unwrap();

    on_complete(|_, _| Err(Error::not_found("no graph")));
    assert_eq!(
        load_error(config().auto_complete()).message,
        "model 'm': no graph"
    );
    on_complete(|_, _| Ok(None));
    on_load(|context| context.config().input("x").map(drop));
    server().load("m", config().auto_complete()).unwrap();
}
