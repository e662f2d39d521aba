//! Asking Triton over gRPC: many requests at once on one connection, each with a deadline.
//!
//! A request that is given up is not cancelled at the server: the gRPC service of Triton 2.51 ends the server when a cancellation
//! meets an answer (seen after tens of thousands of cancelled requests to any model). Its answer is read and thrown away.
//!
//! The messages are the part of the protocol that is used here, with the field numbers of Triton's `grpc_service.proto`; a
//! decoder passes over the fields that it does not know.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::error::answer;
use crate::{Error, Result, Tensor};

/// Maximum time for making a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Maximum wait for the answer to an abandoned request.
const ABANDONED: Duration = Duration::from_secs(60);
/// Interval and timeout of keep-alive pings, because a machine that is gone closes no connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The messages of the protocol, under its names, with the fields that this client uses.
pub mod messages {
    use super::{Bytes, Message};

    /// A request to a model: `ModelInferRequest`.
    #[derive(Clone, PartialEq, Message)]
    pub struct ModelInferRequest {
        /// The model's name.
        #[prost(string, tag = "1")]
        pub model_name: String,
        /// Its version; empty means the latest.
        #[prost(string, tag = "2")]
        pub model_version: String,
        /// Returned in the answer, and written to Triton's log and traces.
        #[prost(string, tag = "3")]
        pub id: String,
        /// Name, type and shape of each input; its data are in `raw_input_contents`.
        #[prost(message, repeated, tag = "5")]
        pub inputs: Vec<InferTensor>,
        /// The requested outputs; empty means all.
        #[prost(message, repeated, tag = "6")]
        pub outputs: Vec<InferRequestedOutputTensor>,
        /// The data of each input, in the order of `inputs`, little-endian.
        #[prost(bytes = "bytes", repeated, tag = "7")]
        pub raw_input_contents: Vec<Bytes>,
    }

    /// A tensor without its data: `InferInputTensor` and `InferOutputTensor`, which have the same fields.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub struct InferTensor {
        /// The tensor's name in the model's configuration.
        #[prost(string, tag = "1")]
        pub name: String,
        /// `INT32` or another of Triton's names.
        #[prost(string, tag = "2")]
        pub datatype: String,
        /// The length of each dimension.
        #[prost(int64, repeated, tag = "3")]
        pub shape: Vec<i64>,
    }

    /// An output that the client asks for: `InferRequestedOutputTensor`.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub struct InferRequestedOutputTensor {
        /// The output's name in the model's configuration.
        #[prost(string, tag = "1")]
        pub name: String,
    }

    /// The answer of a model: `ModelInferResponse`.
    #[derive(Clone, PartialEq, Message)]
    pub struct ModelInferResponse {
        /// The model's name.
        #[prost(string, tag = "1")]
        pub model_name: String,
        /// The version that answered.
        #[prost(string, tag = "2")]
        pub model_version: String,
        /// The id of the request.
        #[prost(string, tag = "3")]
        pub id: String,
        /// Name, type and shape of each output; its data are in `raw_output_contents`.
        #[prost(message, repeated, tag = "5")]
        pub outputs: Vec<InferTensor>,
        /// The data of each output, in the order of `outputs`, little-endian.
        #[prost(bytes = "bytes", repeated, tag = "6")]
        pub raw_output_contents: Vec<Bytes>,
    }

    /// The question whether the server takes requests: `ServerReadyRequest`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct ServerReadyRequest {}

    /// A question about a model: `ModelReadyRequest` and `ModelStatisticsRequest`, which have the same fields.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub struct ModelRequest {
        /// The model; empty: all.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its version; empty means any.
        #[prost(string, tag = "2")]
        pub version: String,
    }

    /// Whether a server or a model is ready: `ServerReadyResponse` and `ModelReadyResponse`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct ReadyResponse {
        /// Whether requests are accepted.
        #[prost(bool, tag = "1")]
        pub ready: bool,
    }

    /// Statistics of models: `ModelStatisticsResponse`.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub struct ModelStatisticsResponse {
        /// One per version of a model.
        #[prost(message, repeated, tag = "1")]
        pub model_stats: Vec<ModelStatistics>,
    }

    /// Statistics of one version of a model since the server's start: `ModelStatistics`.
    #[derive(Clone, PartialEq, Eq, Hash, Message)]
    pub struct ModelStatistics {
        /// The model.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its version.
        #[prost(string, tag = "2")]
        pub version: String,
        /// Requests that were answered.
        #[prost(uint64, tag = "4")]
        pub inference_count: u64,
        /// Calls of the backend, which may take several requests at once.
        #[prost(uint64, tag = "5")]
        pub execution_count: u64,
        /// How often each phase of its requests occurred, and how long it took.
        #[prost(message, optional, tag = "6")]
        pub inference_stats: Option<InferStatistics>,
    }

    /// Counts and times of a model's requests: `InferStatistics`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct InferStatistics {
        /// Requests with an answer, from their arrival to it.
        #[prost(message, optional, tag = "1")]
        pub success: Option<StatisticDuration>,
        /// Requests with an error, from their arrival to it.
        #[prost(message, optional, tag = "2")]
        pub fail: Option<StatisticDuration>,
        /// Waiting for an instance of the model.
        #[prost(message, optional, tag = "3")]
        pub queue: Option<StatisticDuration>,
        /// Preparing the inputs, as the backend reports it.
        #[prost(message, optional, tag = "4")]
        pub compute_input: Option<StatisticDuration>,
        /// Computing, as the backend reports it.
        #[prost(message, optional, tag = "5")]
        pub compute_infer: Option<StatisticDuration>,
        /// Writing the outputs, as the backend reports it.
        #[prost(message, optional, tag = "6")]
        pub compute_output: Option<StatisticDuration>,
    }

    /// A count and a sum of times: `StatisticDuration`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct StatisticDuration {
        /// How often it occurred.
        #[prost(uint64, tag = "1")]
        pub count: u64,
        /// Time of all occurrences, in nanoseconds.
        #[prost(uint64, tag = "2")]
        pub ns: u64,
    }
}

impl messages::ModelStatistics {
    /// Adds the counts of the same model at another server.
    pub fn add(&mut self, other: &Self) {
        self.inference_count += other.inference_count;
        self.execution_count += other.execution_count;
        let (mine, others) = (&mut self.inference_stats, other.inference_stats);
        let Some(others) = others else { return };
        let mine = mine.get_or_insert_default();
        for (mine, others) in [
            (&mut mine.success, others.success),
            (&mut mine.fail, others.fail),
            (&mut mine.queue, others.queue),
            (&mut mine.compute_input, others.compute_input),
            (&mut mine.compute_infer, others.compute_infer),
            (&mut mine.compute_output, others.compute_output),
        ] {
            let Some(others) = others else { continue };
            let mine = mine.get_or_insert_default();
            mine.count += others.count;
            mine.ns += others.ns;
        }
    }
}

/// Id, trace and deadline of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'c> {
    /// The request's id, which Triton writes to its log and traces.
    pub id: &'c str,
    /// The W3C trace context, passed on as metadata; empty: none.
    pub traceparent: &'c str,
    /// Maximum time until the answer; without it, 60 s.
    pub deadline: Option<Duration>,
}

/// A Triton server. Clones share its connection.
///
/// ```no_run
/// use std::time::Duration;
/// use triton_client::grpc::{Call, Client};
/// use triton_client::{Result, Tensor};
///
/// async fn ranked(client: &Client, user: i32) -> Result<Vec<Tensor>> {
///     let call = Call {
///         deadline: Some(Duration::from_millis(50)),
///         ..Call::default()
///     };
///     client.infer("ranker", vec![Tensor::int32("user_id", &[user])], &["ids"], call).await
/// }
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<()> {
///     let client = Client::new("127.0.0.1:8001")?;
///     println!("{:?}", ranked(&client, 42).await?);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    endpoint: Endpoint,
    channel: Channel,
    in_flight: Arc<AtomicUsize>,
}

/// One request among those in flight, until it is dropped.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    /// Opens a client for the server at `host:port`. It connects with the first request, and again whenever the connection is lost.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the address is invalid.
    pub fn new(address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Error::Unreachable {
                address: address.to_owned(),
                reason: format!("{error}; accepted is HOST:PORT"),
            }
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self {
            address: address.to_owned(),
            channel: endpoint.connect_lazy(),
            endpoint,
            in_flight: Arc::default(),
        })
    }

    /// Another connection to the same server. The two count their requests in flight together.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            channel: self.endpoint.connect_lazy(),
            ..self.clone()
        }
    }

    /// Requests that the server has not answered yet, those that were given up included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The address that the client was opened with, `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks a model, the latest version of it, for `outputs` (all, when empty).
    ///
    /// # Errors
    /// Returns an error if the server does not answer in time, or answers with an error.
    pub async fn infer(
        &self,
        model: &str,
        inputs: Vec<Tensor>,
        outputs: &[&str],
        call: Call<'_>,
    ) -> Result<Vec<Tensor>> {
        let mut request = messages::ModelInferRequest {
            model_name: model.to_owned(),
            id: call.id.to_owned(),
            ..Default::default()
        };
        for input in inputs {
            request.inputs.push(messages::InferTensor {
                name: input.name,
                datatype: input.data_type,
                shape: input.shape,
            });
            request.raw_input_contents.push(input.data.into());
        }
        let wanted = |name: &&str| messages::InferRequestedOutputTensor {
            name: (*name).to_owned(),
        };
        request.outputs = outputs.iter().map(wanted).collect();
        let response: messages::ModelInferResponse = self.call("ModelInfer", request, call).await?;
        tensors(response)
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// Returns an error if it does not answer in time.
    pub async fn is_ready(&self, deadline: Duration) -> Result<bool> {
        let request = messages::ServerReadyRequest {};
        let ready: messages::ReadyResponse =
            self.call("ServerReady", request, within(deadline)).await?;
        Ok(ready.ready)
    }

    /// Whether a version of this model can be asked.
    ///
    /// # Errors
    /// Returns an error if the server does not answer in time.
    pub async fn is_model_ready(&self, model: &str, deadline: Duration) -> Result<bool> {
        let request = messages::ModelRequest {
            name: model.to_owned(),
            version: String::new(),
        };
        let ready: messages::ReadyResponse =
            self.call("ModelReady", request, within(deadline)).await?;
        Ok(ready.ready)
    }

    /// Statistics of every version of every model since the server's start.
    ///
    /// # Errors
    /// Returns an error if the server does not answer in time.
    pub async fn statistics(&self, deadline: Duration) -> Result<Vec<messages::ModelStatistics>> {
        let request = messages::ModelRequest::default();
        let statistics: messages::ModelStatisticsResponse = self
            .call("ModelStatistics", request, within(deadline))
            .await?;
        Ok(statistics.model_stats)
    }

    async fn call<Q, A>(&self, method: &'static str, message: Q, call: Call<'_>) -> Result<A>
    where
        Q: Message + Default + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(message);
        if let Ok(value) = MetadataValue::<Ascii>::try_from(call.traceparent)
            && !call.traceparent.is_empty()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        let path = PathAndQuery::try_from(format!("/inference.GRPCInferenceService/{method}"))
            .map_err(|error| answer(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        // A separate task that continues if the caller stops waiting: see the module.
        let in_flight = InFlight::begin(&self.in_flight);
        let asked = tokio::spawn(tokio::time::timeout(ABANDONED, async move {
            let _in_flight = in_flight;
            let ready = client.ready().await;
            ready.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<Q, A>::default();
            client.unary(request, path, codec).await
        }));
        let patience = call.deadline.unwrap_or(ABANDONED);
        let late = || self.unreachable(&format!("no answer within {} ms", patience.as_millis()));
        let Ok(asked) = tokio::time::timeout(patience, asked).await else {
            return Err(late());
        };
        let Ok(answered) = asked.map_err(|error| self.unreachable(&error.to_string()))? else {
            return Err(late());
        };
        answered
            .map(tonic::Response::into_inner)
            .map_err(|status| match status.code() {
                Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
                    self.unreachable(&with_cause(&status))
                }
                // The cause is local, not at the server: the connection broke during a request.
                _ if status.source().is_some() => self.unreachable(&with_cause(&status)),
                code => Error::Refused {
                    code: code as u16,
                    message: status.message().to_owned(),
                },
            })
    }

    fn unreachable(&self, reason: &str) -> Error {
        Error::Unreachable {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// An error with its first cause, such as "Connection refused".
fn with_cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(|error| error.source()) {
        cause = Some(deeper);
    }
    match cause.map(ToString::to_string) {
        Some(cause) if cause != status.message() => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

fn within(deadline: Duration) -> Call<'static> {
    Call {
        deadline: Some(deadline),
        ..Call::default()
    }
}

fn tensors(response: messages::ModelInferResponse) -> Result<Vec<Tensor>> {
    if response.outputs.len() != response.raw_output_contents.len() {
        return Err(answer(format!(
            "{} outputs with the data of {}",
            response.outputs.len(),
            response.raw_output_contents.len()
        )));
    }
    let outputs = response.outputs.into_iter();
    Ok(outputs
        .zip(response.raw_output_contents)
        .map(|(output, data)| Tensor {
            name: output.name,
            data_type: output.datatype,
            shape: output.shape,
            data: data.to_vec(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_has_its_data() {
        let mut response = messages::ModelInferResponse {
            outputs: vec![messages::InferTensor {
                name: "ids".to_owned(),
                datatype: "INT32".to_owned(),
                shape: vec![1],
            }],
            raw_output_contents: vec![Bytes::from_static(&[7, 0, 0, 0])],
            ..Default::default()
        };
        assert_eq!(
            tensors(response.clone()).unwrap(),
            [Tensor::int32("ids", &[7])]
        );
        response.raw_output_contents.clear();
        assert!(tensors(response).is_err());
    }

    /// Against bytes written down by hand from the protocol's field numbers.
    #[test]
    fn requests_have_the_protocols_field_numbers() {
        let request = messages::ModelInferRequest {
            model_name: "m".to_owned(),
            model_version: "2".to_owned(),
            id: "r".to_owned(),
            inputs: vec![messages::InferTensor {
                name: "u".to_owned(),
                datatype: "INT32".to_owned(),
                shape: vec![1],
            }],
            outputs: vec![messages::InferRequestedOutputTensor {
                name: "o".to_owned(),
            }],
            raw_input_contents: vec![Bytes::from_static(&[1, 0, 0, 0])],
        };
        let wanted = b"\x0a\x01m\x12\x012\x1a\x01r\x2a\x0d\x0a\x01u\x12\x05INT32\x1a\x01\x01\x32\x03\x0a\x01o\x3a\x04\x01\0\0\0";
        assert_eq!(request.encode_to_vec(), wanted);
    }
}
