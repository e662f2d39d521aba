//! A real Triton Inference Server for one test.
//!
//! ```no_run
//! use triton_testing::{repository::Repository, server::TritonServer, tensor::Tensor};
//!
//! # fn main() -> anyhow::Result<()> {
//! let repository = Repository::new()?;
//! repository.model("scale", "backend: \"scale\" ...")?;
//! let server = TritonServer::builder().repository(repository.path()).start()?;
//! server.load("scale")?;
//! let outputs = server.infer("scale", &[Tensor::f32("x", &[1.0, 2.0])], &["y"])?;
//! assert_eq!(outputs.f32("y"), [2.0, 4.0]);
//! # Ok(())
//! # }
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{ports::free_port, process::Server, runtime, tensor::Tensor};

/// How to start a server; see [`TritonServer::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    repository: PathBuf,
    backends: Option<PathBuf>,
    models: Vec<String>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    completes: bool,
}

impl Builder {
    /// The model repository; it may be filled after the start.
    #[must_use]
    pub fn repository(mut self, path: impl AsRef<Path>) -> Self {
        self.repository = path.as_ref().to_owned();
        self
    }

    /// The backend directory; without it, `SAKER_BACKENDS` or the workspace's `.saker/backends`.
    #[must_use]
    pub fn backends(mut self, path: impl AsRef<Path>) -> Self {
        self.backends = Some(path.as_ref().to_owned());
        self
    }

    /// A model to load before the server is called ready.
    #[must_use]
    pub fn load(mut self, model: &str) -> Self {
        self.models.push(model.to_owned());
        self
    }

    /// A variable of the server's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets backends complete a config.pbtxt, which is a server's default.
    #[must_use]
    pub fn auto_complete(mut self) -> Self {
        self.completes = true;
        self
    }

    /// A further argument on the server's command line.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the server on free ports of the loopback interface, waits until it is ready and loads the requested models.
    ///
    /// # Errors
    /// Returns an error if Triton or the backends are not installed (the message says how to install them), if the server is not ready
    /// within a minute, or if a model does not load.
    pub fn start(self) -> Result<TritonServer> {
        let program = runtime::tritonserver()?;
        let backends = match &self.backends {
            Some(folder) => folder.clone(),
            None => runtime::backends()?,
        };
        let mut environment = self.environment.clone();
        if let Ok(library) = runtime::onnxruntime() {
            let library = library.to_string_lossy().into_owned();
            environment.insert(0, ("ORT_DYLIB_PATH".to_owned(), library));
        }
        let mut started = self.attempt(&program, &backends, &environment);
        for _ in 0..2 {
            // Another process may take a port between the question and the server's start.
            match &started {
                Err(error) if format!("{error:#}").contains("in use") => {
                    started = self.attempt(&program, &backends, &environment);
                }
                _ => break,
            }
        }
        let server = started?;
        for model in &self.models {
            server.load(model)?;
        }
        Ok(server)
    }

    fn attempt(
        &self,
        program: &Path,
        backends: &Path,
        environment: &[(String, String)],
    ) -> Result<TritonServer> {
        let folder = tempfile::Builder::new().prefix("saker-triton-").tempdir()?;
        let log = folder.path().join("triton.log");
        let ports = [free_port()?, free_port()?, free_port()?];
        let mut arguments = vec![
            format!("--model-repository={}", self.repository.display()),
            format!("--backend-directory={}", backends.display()),
            "--model-control-mode=explicit".to_owned(),
            "--allow-gpu-metrics=false".to_owned(),
            "--metrics-interval-ms=100".to_owned(),
            "--exit-timeout-secs=3".to_owned(),
        ];
        if !self.completes {
            arguments.push("--disable-auto-complete-config".to_owned());
        }
        for (service, port) in ["http", "grpc", "metrics"].iter().zip(ports) {
            arguments.push(format!("--{service}-address=127.0.0.1"));
            arguments.push(format!("--{service}-port={port}"));
        }
        arguments.extend(self.arguments.iter().cloned());
        let process = Server::spawn(
            program,
            arguments.iter().map(String::as_str),
            environment,
            &log,
        )?;
        let server = TritonServer {
            process: Mutex::new(process),
            http_port: ports[0],
            grpc_port: ports[1],
            metrics_port: ports[2],
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(120)))
                .build()
                .into(),
            log,
            _folder: folder,
        };
        server.wait_ready()?;
        Ok(server)
    }
}

/// The server's error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status, such as 400 for `INVALID_ARGUMENT`; 0 when no answer came at all.
    pub status: u16,
    /// The text of the error.
    pub message: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HTTP {}: {}", self.status, self.message)
    }
}

impl std::error::Error for ServerError {}

impl From<ureq::Error> for ServerError {
    fn from(error: ureq::Error) -> Self {
        Self {
            status: 0,
            message: error.to_string(),
        }
    }
}

/// The output tensors of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs(pub Vec<Tensor>);

impl Outputs {
    /// The output of that name, if the server sent it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|tensor| tensor.name == name)
    }

    /// The elements of an `INT32` output.
    ///
    /// # Panics
    /// Panics if the output does not exist or has another type.
    #[must_use]
    pub fn i32(&self, name: &str) -> Vec<i32> {
        self.expect(name).to_i32()
    }

    /// The elements of an `INT64` output.
    ///
    /// # Panics
    /// Panics if the output does not exist or has another type.
    #[must_use]
    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.expect(name).to_i64()
    }

    /// The elements of an `FP32` output.
    ///
    /// # Panics
    /// Panics if the output does not exist or has another type.
    #[must_use]
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.expect(name).to_f32()
    }

    /// The shape of an output.
    ///
    /// # Panics
    /// Panics if the output does not exist.
    #[must_use]
    pub fn shape(&self, name: &str) -> &[i64] {
        &self.expect(name).shape
    }

    fn expect(&self, name: &str) -> &Tensor {
        self.get(name)
            .unwrap_or_else(|| panic!("no output '{name}' among {:?}", self.0))
    }
}

/// A running Triton; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct TritonServer {
    // First, so that the server ends before its folder goes.
    process: Mutex<Server>,
    /// The port of the HTTP service on 127.0.0.1.
    pub http_port: u16,
    /// The port of the gRPC service on 127.0.0.1.
    pub grpc_port: u16,
    /// The port of the metrics service on 127.0.0.1.
    pub metrics_port: u16,
    agent: ureq::Agent,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl TritonServer {
    /// Says how to start a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Loads a model, or loads it anew.
    ///
    /// # Errors
    /// Returns the server's error if the load fails; its message contains the backend's reason.
    pub fn load(&self, model: &str) -> Result<(), ServerError> {
        self.post(&format!("/v2/repository/models/{model}/load"), b"{}")
            .map(drop)
    }

    /// Unloads a model and waits until it is gone.
    ///
    /// # Errors
    /// Returns an error if the server refuses, or the model is still there after ten seconds.
    pub fn unload(&self, model: &str) -> Result<(), ServerError> {
        self.post(&format!("/v2/repository/models/{model}/unload"), b"{}")?;
        let start = Instant::now();
        loop {
            let index = self.post("/v2/repository/index", b"{}")?;
            let models: Vec<Value> = serde_json::from_slice(&index).unwrap_or_default();
            let gone = models
                .iter()
                .filter(|entry| entry["name"] == model)
                .all(|entry| entry["reason"] == "unloaded" || entry["state"].is_null());
            if gone {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(ServerError {
                    status: 0,
                    message: format!("model '{model}' is still loaded: {models:?}"),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks a model for `outputs` (all that it has, when empty), tensors in binary form.
    ///
    /// # Errors
    /// Returns the server's error answer, or status 0 if there was no answer.
    pub fn infer(
        &self,
        model: &str,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<Outputs, ServerError> {
        let described: Vec<Value> = inputs
            .iter()
            .map(|input| {
                json!({
                    "name": input.name,
                    "shape": input.shape,
                    "datatype": input.data_type,
                    "parameters": { "binary_data_size": input.data.len() },
                })
            })
            .collect();
        let mut request = json!({
            "inputs": described,
            "parameters": { "binary_data_output": true },
        });
        if !outputs.is_empty() {
            request["outputs"] = outputs
                .iter()
                .map(|name| json!({ "name": name, "parameters": { "binary_data": true } }))
                .collect();
        }
        let mut body = request.to_string().into_bytes();
        let header = body.len();
        for input in inputs {
            body.extend_from_slice(&input.data);
        }
        let mut response = self
            .agent
            .post(self.url(&format!("/v2/models/{model}/infer")))
            .header("Inference-Header-Content-Length", header.to_string())
            .header("Content-Type", "application/octet-stream")
            .send(&body)?;
        let split = response
            .headers()
            .get("Inference-Header-Content-Length")
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let status = response.status().as_u16();
        let body = read(&mut response)?;
        if status != 200 {
            return Err(error_of(status, &body));
        }
        decode(&body, split.unwrap_or(body.len())).map_err(|error| ServerError {
            status,
            message: format!("the answer cannot be read: {error:#}"),
        })
    }

    /// Sends a JSON body of the KServe v2 protocol to a model, and returns the JSON answer.
    ///
    /// # Errors
    /// Returns the server's error answer, or status 0 if there was no answer.
    pub fn infer_json(&self, model: &str, request: &Value) -> Result<Value, ServerError> {
        let body = self.post(
            &format!("/v2/models/{model}/infer"),
            request.to_string().as_bytes(),
        )?;
        serde_json::from_slice(&body).map_err(|error| ServerError {
            status: 200,
            message: format!("the answer is not JSON: {error}"),
        })
    }

    /// Registers system shared memory from its start; `key` as for `shm_open`.
    ///
    /// # Errors
    /// Returns an error if the server refuses, because the memory does not exist or is too small.
    pub fn share(&self, region: &str, key: &str, byte_size: usize) -> Result<(), ServerError> {
        let body = json!({ "key": key, "offset": 0, "byte_size": byte_size });
        let path = format!("/v2/systemsharedmemory/region/{region}/register");
        self.post(&path, body.to_string().as_bytes()).map(drop)
    }

    /// A model's configuration as the server has it, completed where a backend did so.
    ///
    /// # Errors
    /// Returns an error if the server does not know the model.
    pub fn config(&self, model: &str) -> Result<Value, ServerError> {
        let body = self.get(self.http_port, &format!("/v2/models/{model}/config"))?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The statistics of a model's version 1, in the protocol's form (times in nanoseconds).
    ///
    /// # Errors
    /// Returns an error if the server does not have the model.
    pub fn statistics(&self, model: &str) -> Result<Value, ServerError> {
        let body = self.get(self.http_port, &format!("/v2/models/{model}/stats"))?;
        let mut stats: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(stats["model_stats"][0].take())
    }

    /// The metrics page, in Prometheus' text format.
    ///
    /// # Errors
    /// Returns an error if the metrics service does not answer.
    pub fn metrics(&self) -> Result<String, ServerError> {
        let body = self.get(self.metrics_port, "/metrics")?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The sum over a metric's label sets that hold `label` (`model="x"`, or empty for all);
    /// none when the metrics page has no such line.
    ///
    /// # Errors
    /// Returns an error if the metrics service does not answer.
    pub fn metric(&self, name: &str, label: &str) -> Result<Option<f64>, ServerError> {
        let page = self.metrics()?;
        let values: Vec<f64> = page
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// Everything that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether the server's process runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.lock().is_alive()
    }

    /// The server's process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.lock().id()
    }

    /// Ends the server as Ctrl-C does, and waits until it has gone.
    ///
    /// # Errors
    /// Returns an error if the server still runs after half a minute.
    pub fn stop(&self) -> Result<()> {
        let mut process = self.lock();
        process.signal(Signal::INT)?;
        process.wait(Duration::from_secs(30))
    }

    /// Kills the server's whole process group.
    pub fn kill(&self) {
        self.lock().kill();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Server> {
        self.process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            // The metrics' port opens last.
            if self.get(self.http_port, "/v2/health/ready").is_ok()
                && self.get(self.metrics_port, "/metrics").is_ok()
            {
                return Ok(());
            }
            if !self.is_alive() {
                bail!("Triton ended while it started:\n{}", self.log());
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("Triton is not ready after a minute:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    fn get(&self, port: u16, path: &str) -> Result<Vec<u8>, ServerError> {
        let url = format!("http://127.0.0.1:{port}{path}");
        answer(&mut self.agent.get(url).call()?)
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, ServerError> {
        answer(&mut self.agent.post(self.url(path)).send(body)?)
    }
}

fn answer(response: &mut ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, ServerError> {
    let status = response.status().as_u16();
    let body = read(response)?;
    if status == 200 {
        Ok(body)
    } else {
        Err(error_of(status, &body))
    }
}

fn read(response: &mut ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, ServerError> {
    let body = response.body_mut().with_config().limit(1 << 30);
    Ok(body.read_to_vec()?)
}

fn error_of(status: u16, body: &[u8]) -> ServerError {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = parsed["error"]
        .as_str()
        .map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    ServerError { status, message }
}

fn decode(body: &[u8], split: usize) -> Result<Outputs> {
    let (header, mut data) = body.split_at_checked(split).context("answer cut short")?;
    let header: Value = serde_json::from_slice(header)?;
    let mut outputs = Vec::new();
    for output in header["outputs"].as_array().into_iter().flatten() {
        let text = |key: &str| output[key].as_str().unwrap_or_default().to_owned();
        let size = output["parameters"]["binary_data_size"]
            .as_u64()
            .with_context(|| format!("output '{}' is not in binary form", text("name")))?;
        let (bytes, rest) = data
            .split_at_checked(usize::try_from(size)?)
            .with_context(|| format!("output '{}' cut short", text("name")))?;
        data = rest;
        let shape = output["shape"].as_array().into_iter().flatten();
        outputs.push(Tensor {
            name: text("name"),
            data_type: text("datatype"),
            shape: shape.filter_map(Value::as_i64).collect(),
            data: bytes.to_vec(),
        });
    }
    Ok(Outputs(outputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    fn empty() -> (Repository, TritonServer) {
        let repository = Repository::new().unwrap();
        let server = TritonServer::builder()
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
}
