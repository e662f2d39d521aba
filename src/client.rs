//! Asking Triton over HTTP: the KServe v2 protocol with binary tensors, statistics and configurations.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// A tensor as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// `INT32` or another of Triton's names.
    pub data_type: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, little-endian.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A column of integers.
    pub fn int32(name: &str, values: &[i32]) -> Self {
        Self {
            name: name.to_owned(),
            data_type: "INT32".to_owned(),
            shape: vec![values.len() as i64],
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    /// The elements of an INT32 tensor.
    ///
    /// # Errors
    /// It has another type.
    pub fn int32s(&self) -> Result<Vec<i32>> {
        self.elements("INT32")
            .map(|elements| elements.map(i32::from_le_bytes).collect())
    }

    /// The elements of an FP32 tensor.
    ///
    /// # Errors
    /// It has another type.
    pub fn float32s(&self) -> Result<Vec<f32>> {
        self.elements("FP32")
            .map(|elements| elements.map(f32::from_le_bytes).collect())
    }

    /// The elements of a BYTES tensor, as text.
    ///
    /// # Errors
    /// It has another type, or its lengths do not add up.
    pub fn texts(&self) -> Result<Vec<String>> {
        if self.data_type != "BYTES" {
            bail!("tensor {} is {}, expected BYTES", self.name, self.data_type);
        }
        let mut texts = Vec::new();
        let mut rest = self.data.as_slice();
        while !rest.is_empty() {
            let cut = || format!("tensor {} ends within an element", self.name);
            let (length, after) = rest.split_first_chunk().with_context(cut)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (text, after) = after.split_at_checked(length).with_context(cut)?;
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = after;
        }
        Ok(texts)
    }

    fn elements(&self, data_type: &str) -> Result<impl Iterator<Item = [u8; 4]>> {
        if self.data_type != data_type || !self.data.len().is_multiple_of(4) {
            bail!(
                "tensor {} is {} of {} bytes, expected {data_type}",
                self.name,
                self.data_type,
                self.data.len()
            );
        }
        Ok(self
            .data
            .chunks_exact(4)
            .map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// A version of a model, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// Whether requests can be sent to it.
    pub ready: bool,
    /// Why it is not ready, in the server's words.
    pub reason: String,
}

/// How long a model may take to load.
const LOAD: Duration = Duration::from_secs(600);

/// A Triton server.
pub struct Triton {
    address: String,
    agent: ureq::Agent,
}

impl Triton {
    /// The server at `host:port`.
    pub fn new(address: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        Self {
            address: address.to_owned(),
            agent,
        }
    }

    /// `host:port`
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
    /// # Errors
    /// The server does not answer.
    pub fn statistics(&self) -> Result<serde_json::Map<String, Value>> {
        let answer = self.get("v2/models/stats")?;
        let models = answer["model_stats"]
            .as_array()
            .context("no model_stats in the answer")?;
        let of = |model: &Value| {
            let (name, version) = (model["name"].as_str()?, model["version"].as_str()?);
            Some((format!("{name}/{version}"), model.clone()))
        };
        Ok(models.iter().filter_map(of).collect())
    }

    /// Every version of every model that the server knows.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn models(&self) -> Result<Vec<ModelVersion>> {
        let answer = self.post("v2/repository/index", &json!({}))?;
        let models: Vec<Value> = serde_json::from_slice(&answer).context("Triton's answer")?;
        let version = |model: &Value| {
            Some(ModelVersion {
                model: model["name"].as_str()?.to_owned(),
                version: model["version"].as_str()?.parse().ok()?,
                ready: model["state"] == "READY",
                reason: model["reason"].as_str().unwrap_or_default().to_owned(),
            })
        };
        Ok(models.iter().filter_map(version).collect())
    }

    /// Loads a model, or takes up what has changed in its folder.
    ///
    /// # Errors
    /// The server refuses; the message holds the backend's reason.
    pub fn load(&self, model: &str) -> Result<()> {
        self.load_with(model, &json!({}))
    }

    /// Loads a model by this configuration, whatever its folder says.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_config(&self, model: &str, config: &Value) -> Result<()> {
        let parameters = json!({ "config": config.to_string() });
        self.load_with(model, &json!({ "parameters": parameters }))
    }

    /// Loads a model that has no folder in the repository: an ensemble, whose version holds no file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
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
    /// The server refuses.
    pub fn unload(&self, model: &str) -> Result<()> {
        let path = format!("v2/repository/models/{model}/unload");
        self.post(&path, &json!({})).map(drop)
    }

    /// A model's configuration.
    ///
    /// # Errors
    /// The server does not answer, or has no such model.
    pub fn config(&self, model: &str) -> Result<Value> {
        self.get(&format!("v2/models/{model}/config"))
    }

    /// Asks a model, the latest version of it; all its outputs come back.
    ///
    /// # Errors
    /// The server does not answer, or answers with an error.
    pub fn infer(&self, model: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.infer_at(&format!("v2/models/{model}/infer"), inputs)
    }

    /// Asks this version of a model; otherwise as [`infer`](Self::infer).
    ///
    /// # Errors
    /// As [`infer`](Self::infer).
    pub fn infer_version(
        &self,
        model: &str,
        version: u64,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        self.infer_at(
            &format!("v2/models/{model}/versions/{version}/infer"),
            inputs,
        )
    }

    fn infer_at(&self, path: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
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
        let request = json!({ "inputs": described, "parameters": { "binary_data_output": true } });
        let mut body = request.to_string().into_bytes();
        let header = body.len();
        inputs
            .iter()
            .for_each(|input| body.extend_from_slice(&input.data));
        let mut response = self
            .agent
            .post(self.url(path))
            .header("Inference-Header-Content-Length", header.to_string())
            .header("Content-Type", "application/octet-stream")
            .send(&body)
            .map_err(|error| self.unreachable(&error))?;
        let header = response.headers().get("Inference-Header-Content-Length");
        let header = header.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_vec()
            .context("reading Triton's answer")?;
        if status != 200 {
            bail!("Triton answered: {}", message(&body));
        }
        decode(&body, header.unwrap_or(body.len())).context("Triton's answer cannot be read")
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut response = self
            .agent
            .get(self.url(path))
            .call()
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response
            .body_mut()
            .read_to_vec()
            .context("reading Triton's answer")?;
        if status != 200 {
            bail!("Triton answered: {}", message(&body));
        }
        serde_json::from_slice(&body).context("Triton's answer is no JSON")
    }

    fn post(&self, path: &str, body: &Value) -> Result<Vec<u8>> {
        let mut response = self
            .agent
            .post(self.url(path))
            .config()
            .timeout_global(Some(LOAD))
            .build()
            .header("Content-Type", "application/json")
            .send(body.to_string())
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response
            .body_mut()
            .read_to_vec()
            .context("reading Triton's answer")?;
        if status != 200 {
            bail!("Triton answered: {}", message(&body));
        }
        Ok(body)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        anyhow!(
            "no Triton answers at {} ({error}); start it with `saker serve --detach`, or name another with --server",
            self.address
        )
    }
}

fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let error = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|json| json["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| text.into_owned())
}

/// Reads an answer: JSON of `header` bytes, then the tensors' bytes one after the other.
fn decode(body: &[u8], header: usize) -> Result<Vec<Tensor>> {
    let answer: Value =
        serde_json::from_slice(body.get(..header).context("shorter than its header")?)?;
    let mut rest = &body[header..];
    let mut tensors = Vec::new();
    for output in answer["outputs"].as_array().context("no outputs")? {
        let name = output["name"]
            .as_str()
            .context("an output without a name")?
            .to_owned();
        let length = output["parameters"]["binary_data_size"]
            .as_u64()
            .context("an output that is not binary")?;
        let (data, after) = rest
            .split_at_checked(length as usize)
            .context("fewer bytes than announced")?;
        rest = after;
        tensors.push(Tensor {
            name,
            data_type: output["datatype"].as_str().unwrap_or_default().to_owned(),
            shape: output["shape"]
                .as_array()
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
    use super::*;

    #[test]
    fn texts_have_their_lengths() {
        let tensor = |data: &[u8]| Tensor {
            name: "release".to_owned(),
            data_type: "BYTES".to_owned(),
            shape: vec![1],
            data: data.to_vec(),
        };
        let texts = tensor(b"\x02\0\0\0ab\0\0\0\0").texts().unwrap();
        assert_eq!(texts, ["ab", ""]);
        assert!(tensor(b"\x03\0\0\0ab").texts().is_err());
        assert!(tensor(b"\x03\0\0").texts().is_err());
    }

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
}
