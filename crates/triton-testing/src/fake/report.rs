//! What a backend did with a batch, and the assertions of a test about it.

use triton_rs_sys as sys;

use super::element::Element;
use super::failure::{Failure, Statistic};
use super::objects::RequestObject;

/// The backend's calls for a batch.
///
/// ```no_run
/// use triton_testing::fake::{Input, LoadedModel, Request};
///
/// fn a_wrong_type_is_refused(model: &LoadedModel<'_>) {
///     let request = Request::new().id("7").input(Input::new("x", &[1], &[1i64])).output("y");
///     let report = model.execute([request]);
///     assert!(report.failure(0).message.contains("'x' is INT64; accepted: FP32"));
/// }
/// ```
#[derive(Debug)]
pub struct Report {
    returned: Result<(), Failure>,
    answers: Vec<Answer>,
    batch_statistics: Vec<u64>,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Answer {
    responses: Vec<Response>,
    releases: usize,
    statistics: Vec<Statistic>,
}

/// A response that the backend has sent.
#[derive(Debug, Clone)]
pub struct Response {
    error: Option<Failure>,
    outputs: Vec<Output>,
    /// Keys and values of its parameters, in the order in which the backend set them.
    pub parameters: Vec<(String, String)>,
}

/// An output of a response, as bytes; [`Response::output`] gives its elements.
#[derive(Debug, Clone)]
pub struct Output {
    /// The name in the config.
    pub name: String,
    /// One of `TRITONSERVER_TYPE_*`, such as `TRITONSERVER_TYPE_FP32`.
    pub data_type: sys::TRITONSERVER_DataType,
    /// The length of each dimension.
    pub shape: Vec<i64>,
    /// The elements in row order, as the server would send them.
    pub bytes: Vec<u8>,
}

impl Answer {
    fn of(request: &RequestObject) -> Self {
        let responses = request.responses.iter().filter(|response| response.sent);
        let responses = responses.map(|response| Response {
            error: response.error.clone(),
            outputs: response
                .outputs
                .iter()
                .map(|output| Output {
                    name: output.name.clone(),
                    data_type: output.data_type,
                    shape: output.shape.clone(),
                    bytes: output.sent.clone(),
                })
                .collect(),
            parameters: response.parameters.clone(),
        });
        Self {
            responses: responses.collect(),
            releases: request.releases,
            statistics: request.statistics.clone(),
        }
    }
}

impl Report {
    pub(super) fn new(
        returned: Result<(), Failure>,
        requests: &[Box<RequestObject>],
        batch_statistics: Vec<u64>,
        violations: Vec<String>,
    ) -> Self {
        Self {
            returned,
            answers: requests.iter().map(|request| Answer::of(request)).collect(),
            batch_statistics,
            violations,
        }
    }

    /// The answer to a request: its response, or its error.
    ///
    /// # Panics
    /// Panics if the contract was violated anywhere in the batch, or the request was not answered exactly once, reported as what
    /// it was, and released once.
    #[track_caller]
    pub fn answer(&self, index: usize) -> Result<&Response, &Failure> {
        self.sound();
        let answer = &self.answers[index];
        assert_eq!(answer.releases, 1, "releases of request {index}");
        assert_eq!(answer.responses.len(), 1, "responses to request {index}");
        assert_eq!(answer.statistics.len(), 1, "reports of request {index}");
        let (response, statistic) = (&answer.responses[0], answer.statistics[0]);
        let times = statistic.times_ns;
        assert!(
            times[0] > 0 && times.is_sorted(),
            "times of request {index}: {times:?}"
        );
        let success = response.error.is_none();
        assert_eq!(
            statistic.success, success,
            "request {index} was reported as what it was not"
        );
        response.error.as_ref().map_or(Ok(response), Err)
    }

    /// The successful response to a request.
    ///
    /// # Panics
    /// Panics as [`answer`](Self::answer) does, and if the answer is an error.
    #[track_caller]
    pub fn success(&self, index: usize) -> &Response {
        match self.answer(index) {
            Ok(response) => response,
            Err(failure) => panic!("request {index} failed: {failure:?}"),
        }
    }

    /// The error response to a request.
    ///
    /// # Panics
    /// Panics as [`answer`](Self::answer) does, and if the answer is a success.
    #[track_caller]
    pub fn failure(&self, index: usize) -> &Failure {
        match self.answer(index) {
            Ok(response) => panic!("request {index} succeeded: {response:?}"),
            Err(failure) => failure,
        }
    }

    /// Asserts that a request was released once although no response could be sent.
    ///
    /// # Panics
    /// Panics if the contract was violated, or if the request was not released once or has a response.
    #[track_caller]
    pub fn lost(&self, index: usize) {
        self.sound();
        let answer = &self.answers[index];
        assert!(answer.responses.is_empty(), "request {index} was answered");
        assert_eq!(answer.releases, 1, "releases of request {index}");
    }

    /// The batch sizes reported, one per report.
    pub fn batch_statistics(&self) -> &[u64] {
        &self.batch_statistics
    }

    /// The statistics reported of a request.
    pub fn statistics(&self, index: usize) -> &[Statistic] {
        &self.answers[index].statistics
    }

    /// Violations of the API's contract, such as a request that was released twice. [`answer`](Self::answer) fails if there is one.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    #[track_caller]
    fn sound(&self) {
        assert_eq!(
            self.violations,
            Vec::<String>::new(),
            "violations of the API's contract"
        );
        assert_eq!(self.returned, Ok(()), "the backend gave the requests back");
    }
}

impl Response {
    /// The names of the outputs, in the order the backend made them.
    pub fn names(&self) -> Vec<&str> {
        self.outputs
            .iter()
            .map(|output| output.name.as_str())
            .collect()
    }

    /// An output, unconverted.
    ///
    /// # Panics
    /// Panics if the output does not exist.
    #[track_caller]
    pub fn raw(&self, name: &str) -> &Output {
        let output = self.outputs.iter().find(|output| output.name == name);
        output.unwrap_or_else(|| panic!("no output '{name}' among {:?}", self.names()))
    }

    /// Elements and shape of an output.
    ///
    /// # Panics
    /// Panics if the output does not exist or has another type.
    #[track_caller]
    pub fn output<T: Element>(&self, name: &str) -> (Vec<T>, Vec<i64>) {
        let output = self.raw(name);
        assert_eq!(
            output.data_type,
            T::DATA_TYPE,
            "data type of output '{name}'"
        );
        let elements = output
            .bytes
            .chunks_exact(size_of::<T>())
            .map(T::get)
            .collect();
        (elements, output.shape.clone())
    }
}
