//! Loads models of a backend and executes requests on them, as the server does.

use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use triton_rs_sys as sys;

use super::element::Element;
use super::objects::{
    BackendObject, InstanceObject, MessageObject, ModelObject, RequestObject, Violations, c_string,
};
use super::request::{Config, Request};
use super::{EntryPoints, api};

/// A server's default configuration of a backend.
const BACKEND_CONFIG: &str =
    r#"{"cmdline": {"auto-complete-config": "true", "default-max-batch-size": "4"}}"#;

/// An error that crossed the C API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `TRITONSERVER_ERROR_*`
    pub code: sys::TRITONSERVER_Error_Code,
    /// The message.
    pub message: String,
}

/// A server with one backend.
#[derive(Debug)]
pub struct Server {
    entry_points: EntryPoints,
    backend: Box<BackendObject>,
}

impl Server {
    /// Initializes the backend.
    ///
    /// # Errors
    /// Returns the backend's error.
    pub fn start(name: &str, entry_points: EntryPoints) -> Result<Self, Failure> {
        let mut backend = Box::new(BackendObject {
            name: c_string(name),
            config: MessageObject::kept(BACKEND_CONFIG),
        });
        // SAFETY: the entry points are a backend's, the object lives as long as the server.
        unsafe {
            api::take((entry_points.initialize)(
                ptr::from_mut(&mut *backend).cast(),
            ))?
        };
        Ok(Self {
            entry_points,
            backend,
        })
    }

    /// Loads version 1 of a model from a folder that does not exist, with one instance.
    ///
    /// # Errors
    /// Returns the backend's error.
    pub fn load(&self, name: &str, config: Config) -> Result<LoadedModel<'_>, Failure> {
        self.load_from(
            name,
            1,
            Path::new("/nonexistent").join(name).as_path(),
            config,
        )
    }

    /// Loads a version of a model from its folder, with one instance.
    ///
    /// # Errors
    /// Returns the backend's error.
    pub fn load_from(
        &self,
        name: &str,
        version: u64,
        folder: &Path,
        config: Config,
    ) -> Result<LoadedModel<'_>, Failure> {
        let model = Box::into_raw(Box::new(ModelObject {
            name: c_string(name),
            version,
            location: c_string(&folder.display().to_string()),
            artifact_type: sys::TRITONBACKEND_ARTIFACT_FILESYSTEM,
            config: config.json.to_string(),
            auto_complete: config.auto_complete,
            backend: ptr::from_ref(&*self.backend).cast_mut(),
            state: ptr::null_mut(),
        }));
        let instance = Box::into_raw(Box::new(InstanceObject {
            model,
            state: ptr::null_mut(),
            batch_statistics: Vec::new(),
        }));
        let loaded = LoadedModel {
            server: self,
            model,
            instance,
            finished: Mutex::default(),
        };
        // SAFETY: the objects live until the guard `loaded` is dropped, which finalizes them
        // as Triton does, also after a failed load.
        unsafe {
            api::take((self.entry_points.model_initialize)(model.cast()))?;
            api::take((self.entry_points.instance_initialize)(instance.cast()))?;
        }
        Ok(loaded)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: initialized in `start`; its models borrow the server, so they are gone.
        let _ = unsafe {
            api::take((self.entry_points.finalize)(
                ptr::from_mut(&mut *self.backend).cast(),
            ))
        };
    }
}

/// A model with one instance. Dropped: unloaded.
#[derive(Debug)]
pub struct LoadedModel<'s> {
    server: &'s Server,
    model: *mut ModelObject,
    instance: *mut InstanceObject,
    /// Executed requests, kept so that a late use of one is seen and not undefined.
    finished: Mutex<Vec<Box<RequestObject>>>,
}

impl LoadedModel<'_> {
    /// Executes a batch, and says what the backend did with it.
    pub fn execute(&self, requests: impl IntoIterator<Item = Request>) -> Report {
        let violations = Violations::default();
        let requests: Vec<*mut RequestObject> = requests
            .into_iter()
            .map(|request| Box::into_raw(Box::new(RequestObject::new(request, &violations))))
            .collect();
        let mut raw: Vec<*mut sys::TRITONBACKEND_Request> =
            requests.iter().map(|request| request.cast()).collect();
        // SAFETY: instance and requests are alive; the requests until `finished` is dropped.
        let returned = unsafe {
            (*self.instance).batch_statistics.clear();
            api::take((self.server.entry_points.execute)(
                self.instance.cast(),
                if raw.is_empty() {
                    ptr::null_mut()
                } else {
                    raw.as_mut_ptr()
                },
                raw.len() as u32,
            ))
        };
        // SAFETY: made above by `Box::into_raw`, taken back once.
        let mut requests: Vec<Box<RequestObject>> = requests
            .into_iter()
            .map(|request| unsafe { Box::from_raw(request) })
            .collect();
        let report = Report {
            returned,
            answers: requests.iter().map(|request| Answer::of(request)).collect(),
            // SAFETY: the instance is alive and not executing.
            batch_statistics: unsafe { (*self.instance).batch_statistics.clone() },
            violations: violations.take(),
        };
        self.finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut requests);
        report
    }
}

impl Drop for LoadedModel<'_> {
    fn drop(&mut self) {
        // SAFETY: instance before model, each once; nothing executes, since that borrows.
        unsafe {
            let _ = api::take((self.server.entry_points.instance_finalize)(
                self.instance.cast(),
            ));
            let _ = api::take((self.server.entry_points.model_finalize)(self.model.cast()));
            drop(Box::from_raw(self.instance));
            drop(Box::from_raw(self.model));
        }
    }
}

/// The backend's calls for a batch.
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

/// The statistics reported for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistic {
    /// As reported.
    pub success: bool,
    /// Start of execution, start of computation, end of computation, end of execution, in ns.
    pub times_ns: [u64; 4],
}

/// A response that was sent.
#[derive(Debug, Clone)]
pub struct Response {
    error: Option<Failure>,
    outputs: Vec<Output>,
    /// In the order they were set.
    pub parameters: Vec<(String, String)>,
}

/// An output of a response.
#[derive(Debug, Clone)]
pub struct Output {
    /// The name.
    pub name: String,
    /// `TRITONSERVER_TYPE_*`
    pub data_type: sys::TRITONSERVER_DataType,
    /// The dimensions.
    pub shape: Vec<i64>,
    /// The contents.
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

    /// Violations of the API's contract.
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
