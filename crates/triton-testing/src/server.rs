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

use anyhow::{Result, bail};
use serde_json::{Value, json};

use triton_client::Triton;

use crate::{
    ports::free_port,
    process::{ServerProcess, Signal},
    tensor::Tensor,
};

/// Maximum time for an answer, the load of a model included.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to start a server; see [`TritonServer::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    program: Option<PathBuf>,
    repository: PathBuf,
    backends: Option<PathBuf>,
    models: Vec<String>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    completes: bool,
}

impl Builder {
    /// The server's program; without it, the `tritonserver` in `PATH`, as in NVIDIA's image.
    #[must_use]
    pub fn program(mut self, path: impl AsRef<Path>) -> Self {
        self.program = Some(path.as_ref().to_owned());
        self
    }

    /// The model repository; it may be filled after the start.
    #[must_use]
    pub fn repository(mut self, path: impl AsRef<Path>) -> Self {
        self.repository = path.as_ref().to_owned();
        self
    }

    /// The backend directory, with a folder for each backend; without it, the server's own.
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
    /// Returns an error if the server is not ready within a minute or ends before, with its log, or if a model does not load.
    pub fn start(self) -> Result<TritonServer> {
        let mut started = self.attempt();
        for _ in 0..2 {
            // Another process may take a port between the question and the server's start.
            match &started {
                Err(error) if format!("{error:#}").contains("in use") => {
                    started = self.attempt();
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

    fn attempt(&self) -> Result<TritonServer> {
        let folder = tempfile::Builder::new()
            .prefix("triton-testing-")
            .tempdir()?;
        let log = folder.path().join("triton.log");
        let ports = [free_port()?, free_port()?, free_port()?];
        let mut arguments = vec![
            format!("--model-repository={}", self.repository.display()),
            "--model-control-mode=explicit".to_owned(),
            "--allow-gpu-metrics=false".to_owned(),
            "--metrics-interval-ms=100".to_owned(),
            "--exit-timeout-secs=3".to_owned(),
        ];
        if let Some(backends) = &self.backends {
            arguments.push(format!("--backend-directory={}", backends.display()));
        }
        if !self.completes {
            arguments.push("--disable-auto-complete-config".to_owned());
        }
        for (service, port) in ["http", "grpc", "metrics"].iter().zip(ports) {
            arguments.push(format!("--{service}-address=127.0.0.1"));
            arguments.push(format!("--{service}-port={port}"));
        }
        arguments.extend(self.arguments.iter().cloned());
        let program = self.program.as_deref().unwrap_or(Path::new("tritonserver"));
        let process = ServerProcess::spawn(
            program,
            arguments.iter().map(String::as_str),
            &self.environment,
            &log,
        )?;
        let server = TritonServer {
            process: Mutex::new(process),
            http_port: ports[0],
            grpc_port: ports[1],
            metrics_port: ports[2],
            http: client(ports[0]),
            metrics: client(ports[2]),
            log,
            _folder: folder,
        };
        server.wait_ready()?;
        Ok(server)
    }
}

/// An error that the server answered with, or a missing answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status, such as 400 for `INVALID_ARGUMENT`; 0 when no answer came at all.
    pub status: u16,
    /// The server's text; for a load it holds the backend's reason.
    pub message: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HTTP {}: {}", self.status, self.message)
    }
}

impl std::error::Error for ServerError {}

impl From<triton_client::Error> for ServerError {
    fn from(error: triton_client::Error) -> Self {
        match error {
            triton_client::Error::Refused { code, message } => Self {
                status: code,
                message,
            },
            triton_client::Error::Unreachable { reason, .. } => Self {
                status: 0,
                message: reason,
            },
            other => Self {
                status: 200,
                message: other.to_string(),
            },
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
    process: Mutex<ServerProcess>,
    /// The port of the HTTP service on 127.0.0.1.
    pub http_port: u16,
    /// The port of the gRPC service on 127.0.0.1.
    pub grpc_port: u16,
    /// The port of the metrics service on 127.0.0.1.
    pub metrics_port: u16,
    http: Triton,
    metrics: Triton,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl TritonServer {
    /// A server to be configured and started; [`Builder::start`] starts it.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Loads a model, or loads it anew.
    ///
    /// # Errors
    /// Returns the server's error if the load fails; its message contains the backend's reason.
    pub fn load(&self, model: &str) -> Result<(), ServerError> {
        Ok(self.http.load(model)?)
    }

    /// Unloads a model and waits until it is gone.
    ///
    /// # Errors
    /// Returns an error if the server refuses, or the model is still there after ten seconds.
    pub fn unload(&self, model: &str) -> Result<(), ServerError> {
        self.http.unload(model)?;
        let start = Instant::now();
        loop {
            let index = self.http.post("v2/repository/index", &json!({}))?;
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
        let inputs: Vec<triton_client::Tensor> = inputs.iter().cloned().map(Into::into).collect();
        let answer = self.http.infer_outputs(model, &inputs, outputs)?;
        Ok(Outputs(answer.into_iter().map(Into::into).collect()))
    }

    /// Sends a JSON body of the KServe v2 protocol to a model, and returns the JSON answer.
    ///
    /// # Errors
    /// Returns the server's error answer, or status 0 if there was no answer.
    pub fn infer_json(&self, model: &str, request: &Value) -> Result<Value, ServerError> {
        let body = self
            .http
            .post(&format!("v2/models/{model}/infer"), request)?;
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
        let path = format!("v2/systemsharedmemory/region/{region}/register");
        Ok(self.http.post(&path, &body).map(drop)?)
    }

    /// A model's configuration as the server has it, completed where a backend did so.
    ///
    /// # Errors
    /// Returns an error if the server does not know the model.
    pub fn config(&self, model: &str) -> Result<Value, ServerError> {
        Ok(self.http.config(model)?)
    }

    /// The statistics of a model's version 1, in the protocol's form (times in nanoseconds).
    ///
    /// # Errors
    /// Returns an error if the server does not have the model.
    pub fn statistics(&self, model: &str) -> Result<Value, ServerError> {
        let body = self.http.get(&format!("v2/models/{model}/stats"))?;
        let mut stats: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(stats["model_stats"][0].take())
    }

    /// The metrics page, in Prometheus' text format.
    ///
    /// # Errors
    /// Returns an error if the metrics service does not answer.
    pub fn metrics(&self) -> Result<String, ServerError> {
        let body = self.metrics.get("metrics")?;
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

    fn lock(&self) -> std::sync::MutexGuard<'_, ServerProcess> {
        self.process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            // The metrics' port opens last.
            if self.http.is_ready() && self.metrics().is_ok() {
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
}

/// A client of the service on this port.
fn client(port: u16) -> Triton {
    Triton::with_timeout(&format!("127.0.0.1:{port}"), PATIENCE)
}
