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

    /// Whether the server and all its models are ready.
    pub fn is_ready(&self) -> bool {
        self.agent
            .get(self.url("v2/health/ready"))
            .call()
            .is_ok_and(|response| response.status() == 200)
    }

    /// Statistics of every model since the server's start, by model name.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn statistics(&self) -> Result<serde_json::Map<String, Value>> {
        let answer = self.get("v2/models/stats")?;
        let models = answer["model_stats"]
            .as_array()
            .context("no model_stats in the answer")?;
        Ok(models
            .iter()
            .filter_map(|model| Some((model["name"].as_str()?.to_owned(), model.clone())))
            .collect())
    }

    /// A model's configuration.
    ///
    /// # Errors
    /// The server does not answer, or has no such model.
    pub fn config(&self, model: &str) -> Result<Value> {
        self.get(&format!("v2/models/{model}/config"))
    }

    /// Asks a model; all its outputs come back.
    ///
    /// # Errors
    /// The server does not answer, or answers with an error.
    pub fn infer(&self, model: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
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
            .post(self.url(&format!("v2/models/{model}/infer")))
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
        assert!(
            decode(&body[..body.len() - 1], json.len()).is_err(),
            "a cut answer is an error"
        );
    }
}
