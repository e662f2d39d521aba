//! Asking Triton over HTTP, one request at a time: binary tensors, statistics, configurations and the repository.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::answer;
use crate::{Error, Result, Tensor};

/// A version of a model, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model's name.
    pub model: String,
    /// The number of its version folder.
    pub version: u64,
    /// Whether requests can be sent to it.
    pub ready: bool,
    /// Why it is not ready, in the server's words.
    pub reason: String,
}

/// Maximum time for the load of a model.
const LOAD: Duration = Duration::from_secs(600);
/// Maximum size of an answer, in bytes.
const LARGEST: u64 = 1 << 30;

/// Default maximum time for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A Triton server.
///
/// Each request opens a connection and blocks the thread. The module `grpc` has an asynchronous client.
///
/// ```no_run
/// use std::time::Duration;
/// use triton_client::{Tensor, Triton};
///
/// # fn main() -> triton_client::Result<()> {
/// let triton = Triton::with_timeout("127.0.0.1:8000", Duration::from_secs(5));
/// triton.load("double")?;
/// let outputs = triton.infer("double", &[Tensor::float32("x", &[1.0, 3.0])])?;
/// println!("{:?}", outputs[0].float32s()?);
/// # Ok(())
/// # }
/// ```
pub struct Triton {
    address: String,
    agent: ureq::Agent,
    /// Maximum time for a request to the control API.
    control_timeout: Duration,
    /// Name and value of the header that the control API asks for.
    control_header: Option<(String, String)>,
}

/// Without the value of the control header, which is a secret.
impl fmt::Debug for Triton {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Triton")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Triton {
    /// A client of the server at `host:port`. An answer may take 30 s, the load of a model 10 minutes.
    pub fn new(address: &str) -> Self {
        Self::with_timeouts(address, ANSWER, LOAD)
    }

    /// A client of the server at `host:port`, each of whose answers may take so long, that to a load included.
    pub fn with_timeout(address: &str, timeout: Duration) -> Self {
        Self::with_timeouts(address, timeout, timeout)
    }

    fn with_timeouts(address: &str, timeout: Duration, control_timeout: Duration) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            // Triton waits at its end until every connection is closed, idle ones included.
            .max_idle_connections(0)
            .build()
            .into();
        Self {
            address: address.to_owned(),
            agent,
            control_timeout,
            control_header: None,
        }
    }

    /// Sends this header with every request to the control API.
    ///
    /// A server that was started with `--http-restricted-api=model-repository:NAME=VALUE` refuses such requests without it.
    #[must_use]
    pub fn with_control_header(mut self, name: &str, value: &str) -> Self {
        self.control_header = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// The address that the client was made with, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether a server answers there and is ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready_at("v2/health/ready")
    }

    /// Whether a version of this model can be asked.
    pub fn is_model_ready(&self, model: &str) -> bool {
        self.is_ready_at(&format!("v2/models/{model}/ready"))
    }

    fn is_ready_at(&self, path: &str) -> bool {
        self.agent
            .get(self.url(path))
            .call()
            .is_ok_and(|response| response.status() == 200)
    }

    /// Statistics of every model since the server's start, by its name and version, such as `faiss_retrieval/1`.
    ///
    /// ```no_run
    /// # fn main() -> triton_client::Result<()> {
    /// let statistics = triton_client::Triton::new("127.0.0.1:8000").statistics()?;
    /// for (model, counted) in &statistics {
    ///     println!("{model}: {:?} requests", counted.pointer("/inference_stats/success/count"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn statistics(&self) -> Result<serde_json::Map<String, Value>> {
        let statistics = self.get_json("v2/models/stats")?;
        let models = statistics
            .get("model_stats")
            .and_then(Value::as_array)
            .ok_or_else(|| answer("no model_stats"))?;
        let of = |model: &Value| {
            let text = |key: &str| model.get(key)?.as_str();
            let (name, version) = (text("name")?, text("version")?);
            Some((format!("{name}/{version}"), model.clone()))
        };
        Ok(models.iter().filter_map(of).collect())
    }

    /// Every version of every model that the server knows.
    ///
    /// ```no_run
    /// # fn main() -> triton_client::Result<()> {
    /// for version in triton_client::Triton::new("127.0.0.1:8000").models()? {
    ///     println!("{} {}: {}", version.model, version.version, version.ready);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn models(&self) -> Result<Vec<ModelVersion>> {
        let body = self.post("v2/repository/index", &json!({}))?;
        let models: Vec<Value> =
            serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))?;
        let version = |model: &Value| {
            let text = |key: &str| model.get(key)?.as_str();
            Some(ModelVersion {
                model: text("name")?.to_owned(),
                version: text("version")?.parse().ok()?,
                ready: text("state") == Some("READY"),
                reason: text("reason").unwrap_or_default().to_owned(),
            })
        };
        Ok(models.iter().filter_map(version).collect())
    }

    /// Loads a model, or takes up what has changed in its folder.
    ///
    /// # Errors
    /// Returns an error if the server refuses; the message holds the backend's reason.
    pub fn load(&self, model: &str) -> Result<()> {
        self.load_with(model, &json!({}))
    }

    /// Loads a model by this configuration, whatever its folder says.
    ///
    /// ```no_run
    /// # fn main() -> triton_client::Result<()> {
    /// let triton = triton_client::Triton::new("127.0.0.1:8000");
    /// let mut config = triton.config("double")?;
    /// config["max_batch_size"] = 16.into();
    /// triton.load_config("double", &config)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error as [`load`](Self::load) does.
    pub fn load_config(&self, model: &str, config: &Value) -> Result<()> {
        let parameters = json!({ "config": config.to_string() });
        self.load_with(model, &json!({ "parameters": parameters }))
    }

    /// Loads a model that has no folder in the repository: an ensemble, whose version holds no file.
    ///
    /// # Errors
    /// Returns an error as [`load`](Self::load) does.
    pub fn load_ensemble(&self, model: &str, config: &Value) -> Result<()> {
        // A version needs a folder, and a folder comes with a file; the content is "none" in Base64.
        let parameters = json!({ "config": config.to_string(), "file:1/none": "bm9uZQ==" });
        self.load_with(model, &json!({ "parameters": parameters }))
    }

    fn load_with(&self, model: &str, body: &Value) -> Result<()> {
        let path = format!("v2/repository/models/{model}/load");
        self.post(&path, body).map(drop)
    }

    /// Unloads a model; those that an ensemble is made of stay.
    ///
    /// # Errors
    /// Returns an error if the server refuses.
    pub fn unload(&self, model: &str) -> Result<()> {
        let path = format!("v2/repository/models/{model}/unload");
        self.post(&path, &json!({})).map(drop)
    }

    /// A model's configuration.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or has no such model.
    pub fn config(&self, model: &str) -> Result<Value> {
        self.get_json(&format!("v2/models/{model}/config"))
    }

    /// Asks a model, the latest version of it; all its outputs come back.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or answers with an error.
    pub fn infer(&self, model: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.infer_outputs(model, inputs, &[])
    }

    /// Asks a model, the latest version of it, for these outputs (all, when empty).
    ///
    /// ```no_run
    /// # use triton_client::{Tensor, Triton};
    /// # fn main() -> triton_client::Result<()> {
    /// let triton = Triton::new("127.0.0.1:8000");
    /// let request = [Tensor::int32("user_id", &[42])];
    /// let ids = triton.infer_outputs("ranker", &request, &["ids"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error as [`infer`](Self::infer) does, or if the model lacks an output.
    pub fn infer_outputs(
        &self,
        model: &str,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>> {
        self.infer_at(&format!("v2/models/{model}/infer"), inputs, outputs)
    }

    /// Asks this version of a model; otherwise as [`infer`](Self::infer).
    ///
    /// # Errors
    /// Returns an error as [`infer`](Self::infer) does.
    pub fn infer_version(
        &self,
        model: &str,
        version: u64,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        self.infer_at(
            &format!("v2/models/{model}/versions/{version}/infer"),
            inputs,
            &[],
        )
    }

    fn infer_at(&self, path: &str, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>> {
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
        let parameters = json!({ "binary_data_output": true });
        let request = if outputs.is_empty() {
            json!({ "inputs": described, "parameters": parameters })
        } else {
            let wanted: Vec<Value> = outputs
                .iter()
                .map(|name| json!({ "name": name, "parameters": { "binary_data": true } }))
                .collect();
            json!({ "inputs": described, "outputs": wanted, "parameters": parameters })
        };
        let mut body = request.to_string().into_bytes();
        let header = body.len();
        inputs
            .iter()
            .for_each(|input| body.extend_from_slice(&input.data));
        let response = self
            .agent
            .post(self.url(path))
            .header("Inference-Header-Content-Length", header.to_string())
            .header("Content-Type", "application/octet-stream")
            .send(&body);
        let (header, body) = self.answered(response)?;
        decode(&body, header.unwrap_or(body.len()))
    }

    fn get_json(&self, path: &str) -> Result<Value> {
        serde_json::from_slice(&self.get(path)?)
            .map_err(|error| answer(format!("no JSON: {error}")))
    }

    /// The answer to a GET request of a path for which this client has no method, such as `v2/trace/setting`.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or answers with an error.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let (_, body) = self.answered(self.agent.get(self.url(path)).call())?;
        Ok(body)
    }

    /// Sends JSON to a path for which this client has no method, such as `v2/logging`, and returns the answer.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or answers with an error.
    pub fn post(&self, path: &str, body: &Value) -> Result<Vec<u8>> {
        let mut request = self
            .agent
            .post(self.url(path))
            .config()
            .timeout_global(Some(self.control_timeout))
            .build()
            .header("Content-Type", "application/json");
        if let Some((name, value)) = &self.control_header {
            request = request.header(name, value);
        }
        let response = request.send(body.to_string());
        self.answered(response).map(|(_, body)| body)
    }

    /// The body of an answer, and the length of its JSON where binary tensors follow.
    fn answered(
        &self,
        response: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(Option<usize>, Vec<u8>)> {
        let unreachable = |error: ureq::Error| Error::Unreachable {
            address: self.address.clone(),
            reason: error.to_string(),
        };
        let mut response = response.map_err(unreachable)?;
        let header = response.headers().get("Inference-Header-Content-Length");
        let header = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(LARGEST);
        let body = body.read_to_vec().map_err(unreachable)?;
        match status {
            200 => Ok((header, body)),
            code => Err(Error::Refused {
                code,
                message: message(&body),
            }),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let error = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|json| json.get("error")?.as_str().map(str::to_owned));
    error.unwrap_or_else(|| text.into_owned())
}

/// Reads an answer: JSON of `header` bytes, then the tensors' bytes one after the other.
fn decode(body: &[u8], header: usize) -> Result<Vec<Tensor>> {
    let (json, mut rest) = body
        .split_at_checked(header)
        .ok_or_else(|| answer("shorter than its header"))?;
    let json: Value = serde_json::from_slice(json).map_err(|error| answer(error.to_string()))?;
    let outputs = json
        .get("outputs")
        .and_then(Value::as_array)
        .ok_or_else(|| answer("no outputs"))?;
    let mut tensors = Vec::new();
    for output in outputs {
        let text = |key: &str| output.get(key).and_then(Value::as_str);
        let name = text("name").ok_or_else(|| answer("an output without a name"))?;
        let length = output
            .pointer("/parameters/binary_data_size")
            .and_then(Value::as_u64)
            .ok_or_else(|| answer(format!("output {name} is not binary")))?;
        let (data, after) = rest
            .split_at_checked(length as usize)
            .ok_or_else(|| answer(format!("output {name} has fewer bytes than announced")))?;
        rest = after;
        tensors.push(Tensor {
            name: name.to_owned(),
            data_type: text("datatype").unwrap_or_default().to_owned(),
            shape: output
                .get("shape")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_i64)
                .collect(),
            data: data.to_vec(),
        });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn binary_answers_are_read() {
        let json = br#"{"outputs":[{"name":"ids","datatype":"INT32","shape":[2],"parameters":{"binary_data_size":8}},
            {"name":"scores","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#;
        let mut body = json.to_vec();
        body.extend([7i32, -1].iter().flat_map(|id| id.to_le_bytes()));
        body.extend(0.5f32.to_le_bytes());
        let tensors = decode(&body, json.len()).unwrap();
        assert_eq!(tensors[0].int32s().unwrap(), [7, -1]);
        assert_eq!(tensors[1].float32s().unwrap(), [0.5]);
        assert!(tensors[0].float32s().is_err());
        assert!(tensors[0].texts().is_err());
        assert!(
            decode(&body[..body.len() - 1], json.len()).is_err(),
            "a cut answer is an error"
        );
    }

    /// Answers one request with this JSON, and returns what was asked: head and body.
    fn asked(answer: &'static str, ask: impl FnOnce(&str)) -> (String, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).unwrap();
            }
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let length = answer.len();
            write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"
            )
            .unwrap();
            (head, body)
        });
        ask(&address);
        server.join().unwrap()
    }

    #[test]
    fn a_request_names_the_outputs_that_it_wants() {
        let (head, body) = asked(r#"{"outputs":[]}"#, |address| {
            let inputs = [Tensor::int32("id", &[7])];
            let answer = Triton::new(address).infer_outputs("m", &inputs, &["y"]);
            assert_eq!(answer.unwrap(), []);
        });
        assert!(head.starts_with("post /v2/models/m/infer "), "{head}");
        let json = body.len() - 4;
        assert!(
            head.contains(&format!("inference-header-content-length: {json}\r")),
            "{head}"
        );
        assert_eq!(body[json..], [7, 0, 0, 0]);
        let request: Value = serde_json::from_slice(&body[..json]).unwrap();
        assert_eq!(request["inputs"][0]["shape"], json!([1]));
        assert_eq!(
            request["outputs"],
            json!([{ "name": "y", "parameters": { "binary_data": true } }])
        );
    }

    #[test]
    fn the_control_api_alone_gets_the_header() {
        let client = |address: &str| Triton::new(address).with_control_header("the-key", "word");
        let (head, _) = asked("", |address| client(address).load("m").unwrap());
        assert!(
            head.starts_with("post /v2/repository/models/m/load "),
            "{head}"
        );
        assert!(head.contains("the-key: word\r"), "{head}");
        let (head, _) = asked("", |address| assert!(client(address).is_model_ready("m")));
        assert!(!head.contains("the-key"), "{head}");
        let shown = format!("{:?}", client("a:1"));
        assert!(shown.contains("a:1") && !shown.contains("word"), "{shown}");
    }
}
