//! A batch of requests, each answered once and released once.

use std::cell::Cell;
use std::ffi::CStr;
use std::ptr;

use smallvec::SmallVec;
use triton_rs_sys as sys;

use crate::borrows::Borrows;
use crate::config::tensor_names;
use crate::ffi::{check, guard, text, to_raw};
use crate::{Code, Error, ModelContext, Response, Tensor, clock, log};

/// The requests of one call of [`Instance::execute`](crate::Instance::execute).
///
/// To handle them one by one, call [`respond_each`](Self::respond_each). To handle them together, read from [`requests`](Self::requests),
/// [`reject`](Self::reject) invalid ones, compute, and [`respond`](Self::respond) to the rest. Requests without an answer when `execute`
/// returns are answered with an error. Each request is released exactly once after that, so all inputs stay readable until `execute`
/// returns.
///
/// Requests that are computed together:
///
/// ```no_run
/// use triton_backend::{Batch, Error};
///
/// fn execute(batch: &Batch<'_>) -> Result<(), Error> {
///     let mut rows = Vec::new();
///     for (index, request) in batch.pending() {
///         let x = request.input("x").and_then(|x| x.as_slice::<f32>());
///         match x {
///             Ok(x) => rows.push((index, x)),
///             Err(error) => batch.reject(index, error),
///         }
///     }
///     batch.compute_starts();
///     let sums: Vec<f32> = rows.iter().map(|(_, x)| x.iter().sum()).collect();
///     batch.compute_ends();
///     for ((index, _), sum) in rows.iter().zip(sums) {
///         batch.respond(*index, |_, response| response.write("sum", &[1], &[sum]));
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Batch<'b> {
    requests: SmallVec<[Request<'b>; 8]>,
    compute_start_ns: Cell<Option<u64>>,
    compute_end_ns: Cell<Option<u64>>,
    /// Time at which the last response was ready. Sending a response may run the next steps of an ensemble on this thread. Their time does
    /// not count as this model's computation.
    ready_ns: Cell<Option<u64>>,
}

/// One request of a batch.
///
/// ```no_run
/// use triton_backend::{Error, Request};
///
/// /// The FP32 vector `x`, times the FP32 number `factor` if the request has one.
/// fn scaled(request: &Request<'_>) -> Result<Vec<f32>, Error> {
///     let factor = match request.optional_input("factor")? {
///         Some(factor) => factor.as_slice::<f32>()?.first().copied().unwrap_or(1.0),
///         None => 1.0,
///     };
///     let x = request.input("x")?.as_slice::<f32>()?;
///     Ok(x.iter().map(|x| factor * x).collect())
/// }
/// ```
#[derive(Debug)]
pub struct Request<'b> {
    raw: *mut sys::TRITONBACKEND_Request,
    context: &'b ModelContext,
    borrows: &'b Borrows,
    state: Cell<State>,
}

/// Progress of the answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    /// A response exists, so an error must go through it.
    Open(*mut sys::TRITONBACKEND_Response),
    Answered {
        success: bool,
    },
}

impl<'b> Batch<'b> {
    /// # Safety
    /// The requests are owned by the caller, which calls [`finish`](Self::finish) before `'b` ends.
    pub(crate) unsafe fn new(
        requests: &'b [*mut sys::TRITONBACKEND_Request],
        context: &'b ModelContext,
        borrows: &'b Borrows,
    ) -> Self {
        let requests = requests
            .iter()
            .map(|&raw| Request {
                raw,
                context,
                borrows,
                state: Cell::new(State::Pending),
            })
            .collect();
        Self {
            requests,
            compute_start_ns: Cell::new(None),
            compute_end_ns: Cell::new(None),
            ready_ns: Cell::new(None),
        }
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the batch is empty. Triton never sends an empty batch.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// All requests, answered or not.
    pub fn requests(&self) -> &[Request<'b>] {
        &self.requests
    }

    /// The requests without an answer, with their index in the batch. Requests that the client has cancelled are answered and skipped. Call
    /// this before expensive work.
    pub fn pending(&self) -> impl Iterator<Item = (usize, &Request<'b>)> {
        self.requests.iter().enumerate().filter(|(_, request)| {
            let pending = request.state.get() == State::Pending;
            if pending && request.is_cancelled() {
                request.answer_error(&cancelled());
                return false;
            }
            pending
        })
    }

    /// Answers each pending request with `answer`. A request that the client has cancelled is answered without calling it. An error or a
    /// panic of `answer` concerns that request alone.
    ///
    /// ```no_run
    /// # use triton_backend::Batch;
    /// # fn execute(batch: &Batch<'_>) {
    /// batch.respond_each(|request, response| {
    ///     let names = request.input("name")?.strings()?;
    ///     let lengths: Vec<i32> = names.iter().map(|name| name.len() as i32).collect();
    ///     response.write("length", &[lengths.len() as i64], &lengths)
    /// });
    /// # }
    /// ```
    pub fn respond_each(
        &self,
        mut answer: impl FnMut(&Request<'b>, &Response<'_>) -> Result<(), Error>,
    ) {
        for (index, _) in self.pending() {
            self.respond(index, &mut answer);
        }
    }

    /// Answers one request: `answer` writes the outputs, and its error or panic becomes an error response. Returns whether the answer is a
    /// success.
    ///
    /// A request that already has an answer keeps it. An index beyond the batch is ignored.
    pub fn respond(
        &self,
        index: usize,
        answer: impl FnOnce(&Request<'b>, &Response<'_>) -> Result<(), Error>,
    ) -> bool {
        let Some(request) = self.requests.get(index) else {
            return false;
        };
        if request.state.get() != State::Pending {
            return false;
        }
        let raw = match request.open() {
            Ok(raw) => raw,
            Err(error) => {
                request.lost(&error);
                return false;
            }
        };
        let result = guard(|| {
            // SAFETY: just made for this request, and sent only below or in `finish`.
            let response = unsafe { Response::new(raw, request, request.context, request.borrows) };
            answer(request, &response)?;
            response.complete()
        });
        request.borrows.release(raw);
        self.ready_ns.set(Some(clock::now_ns()));
        match result {
            Ok(()) => request.send(raw, None),
            Err(error) => request.send(raw, Some(&error)),
        }
    }

    /// Answers one request with an error, unless it has an answer or is being answered.
    pub fn reject(&self, index: usize, error: Error) {
        if let Some(request) = self.requests.get(index)
            && request.state.get() == State::Pending
        {
            request.answer_error(&error);
        }
    }

    /// Marks the start of the model's computation, after the inputs are gathered, for Triton's `compute_input` and `compute_infer`
    /// statistics. Without this call, the computation starts with `execute`.
    pub fn compute_starts(&self) {
        self.compute_start_ns.set(Some(clock::now_ns()));
    }

    /// Marks the end of the computation and the start of writing outputs, for Triton's `compute_output` statistics. Without this call, the
    /// computation ends when the last response is ready to be sent.
    pub fn compute_ends(&self) {
        self.compute_end_ns.set(Some(clock::now_ns()));
    }

    /// Answers the remaining requests with `result`'s error, reports the statistics, and releases the requests.
    ///
    /// # Safety
    /// `instance` is alive. Nothing may use the requests afterwards.
    pub(crate) unsafe fn finish(
        self,
        instance: *mut sys::TRITONBACKEND_ModelInstance,
        exec_start_ns: u64,
        result: Result<(), Error>,
    ) {
        let error = match result {
            Err(error) => error,
            Ok(()) => Error::internal("the backend left this request unanswered"),
        };
        for request in &self.requests {
            request.answer_error(&error);
        }
        let exec_end_ns = clock::now_ns();
        let compute_start_ns = self.compute_start_ns.get().unwrap_or(exec_start_ns);
        let compute_end_ns = self
            .compute_end_ns
            .get()
            .or(self.ready_ns.get())
            .unwrap_or(exec_end_ns)
            .max(compute_start_ns);
        let mut batch_size = 0;
        let mut successes = 0;
        for request in &self.requests {
            batch_size += request.batch_size();
            let success = request.state.get() == State::Answered { success: true };
            successes += usize::from(success);
            // SAFETY: instance and request are alive.
            let reported = unsafe {
                check(sys::TRITONBACKEND_ModelInstanceReportStatistics(
                    instance,
                    request.raw,
                    success,
                    exec_start_ns,
                    compute_start_ns,
                    compute_end_ns,
                    exec_end_ns,
                ))
            };
            request.note("reporting statistics", reported);
        }
        if successes > 0 {
            // SAFETY: the instance is alive.
            let reported = unsafe {
                check(sys::TRITONBACKEND_ModelInstanceReportBatchStatistics(
                    instance,
                    batch_size,
                    exec_start_ns,
                    compute_start_ns,
                    compute_end_ns,
                    exec_end_ns,
                ))
            };
            if let Some(request) = self.requests.first() {
                request.note("reporting batch statistics", reported);
            }
        }
        for request in &self.requests {
            let flags = sys::TRITONSERVER_REQUEST_RELEASE_ALL;
            // SAFETY: owned by us, answered, and not used after this.
            let released = unsafe { check(sys::TRITONBACKEND_RequestRelease(request.raw, flags)) };
            request.note("releasing a request", released);
        }
    }
}

fn cancelled() -> Error {
    Error::cancelled("the client cancelled the request")
}

impl<'b> Request<'b> {
    /// The request id that the client set, or empty.
    pub fn id(&self) -> &str {
        let mut id = ptr::null();
        // SAFETY: the request is alive and owns the string until it is released.
        match unsafe { check(sys::TRITONBACKEND_RequestId(self.raw, &mut id)).map(|()| text(id)) } {
            Ok(std::borrow::Cow::Borrowed(id)) => id,
            _ => "",
        }
    }

    /// The input of this name.
    ///
    /// # Errors
    /// Returns an error if the config declares no such input, if the request lacks it, or if its bytes do not match its shape.
    pub fn input(&self, name: &str) -> Result<Tensor<'_>, Error> {
        self.optional_input(name)?
            .ok_or_else(|| Error::invalid_argument(format!("the request has no input '{name}'")))
    }

    /// The input of this name; `None` if the request lacks it.
    ///
    /// # Errors
    /// Returns an error if the config declares no such input, or if its bytes do not match its shape.
    pub fn optional_input(&self, name: &str) -> Result<Option<Tensor<'_>>, Error> {
        match self.context.config().input_index(name) {
            Some(index) => self.input_at(index),
            None => Err(Error::internal(format!(
                "the backend asks for the input '{name}'; config.pbtxt declares: {}",
                tensor_names(self.context.config().inputs())
            ))),
        }
    }

    /// The input at this index of [`ModelConfig::inputs`](crate::ModelConfig::inputs); `None` if the request lacks it. A backend that
    /// iterates over its config thus avoids the search by name.
    ///
    /// # Errors
    /// Returns an error if the input's bytes do not match its shape, or if the config has no such index.
    pub fn input_at(&self, index: usize) -> Result<Option<Tensor<'_>>, Error> {
        let config = self
            .context
            .config()
            .inputs()
            .get(index)
            .ok_or_else(|| Error::internal(format!("the model has no input number {index}")))?;
        let mut input = ptr::null_mut();
        // SAFETY: the request is alive, the name NUL-terminated. The call fails only if the request has no such input.
        let found = unsafe {
            check(sys::TRITONBACKEND_RequestInput(
                self.raw,
                config.c_name.as_ptr(),
                &mut input,
            ))
        };
        if found.is_err() || input.is_null() {
            return Ok(None);
        }
        // SAFETY: an input of this request, which is released only after the borrow of it ends.
        unsafe { Tensor::new(input, self.borrows) }.map(Some)
    }

    /// The inputs of the request, in its order.
    pub fn inputs(&self) -> impl Iterator<Item = Result<Tensor<'_>, Error>> {
        let mut count = 0;
        // SAFETY: the request is alive.
        let counted = unsafe { check(sys::TRITONBACKEND_RequestInputCount(self.raw, &mut count)) };
        let count = if counted.is_ok() { count } else { 0 };
        (0..count).map(|index| {
            let mut input = ptr::null_mut();
            // SAFETY: the request is alive and the index below its count; see `input_at`.
            unsafe {
                check(sys::TRITONBACKEND_RequestInputByIndex(
                    self.raw, index, &mut input,
                ))?;
                Tensor::new(input, self.borrows)
            }
        })
    }

    /// Whether the client requested this output.
    pub fn wants(&self, output: &str) -> bool {
        self.requested()
            .any(|name| name.to_bytes() == output.as_bytes())
    }

    /// The names of the outputs that the client requested.
    pub(crate) fn requested(&self) -> impl Iterator<Item = &CStr> {
        let mut count = 0;
        // SAFETY: the request is alive.
        let counted = unsafe { check(sys::TRITONBACKEND_RequestOutputCount(self.raw, &mut count)) };
        let count = if counted.is_ok() { count } else { 0 };
        (0..count).filter_map(|index| {
            let mut name = ptr::null();
            // SAFETY: the request is alive, the index below its count, and the name lives as
            // long as the request.
            unsafe {
                check(sys::TRITONBACKEND_RequestOutputName(
                    self.raw, index, &mut name,
                ))
                .ok()?;
                (!name.is_null()).then(|| CStr::from_ptr(name))
            }
        })
    }

    /// Whether the client has cancelled the request.
    pub fn is_cancelled(&self) -> bool {
        let mut cancelled = false;
        // SAFETY: the request is alive.
        let asked = unsafe {
            check(sys::TRITONBACKEND_RequestIsCancelled(
                self.raw,
                &mut cancelled,
            ))
        };
        asked.is_ok() && cancelled
    }

    /// Size of the batch dimension: the first dimension of the first input, or 1 for a model without a batch dimension.
    fn batch_size(&self) -> u64 {
        if self.context.config().max_batch_size() == 0 {
            return 1;
        }
        let first = self.inputs().next();
        first
            .and_then(Result::ok)
            .and_then(|t| t.shape().first().copied())
            .map_or(1, |rows| rows.max(1) as u64)
    }

    fn open(&self) -> Result<*mut sys::TRITONBACKEND_Response, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the request is alive and has no response yet.
        unsafe { check(sys::TRITONBACKEND_ResponseNew(&mut raw, self.raw))? };
        self.state.set(State::Open(raw));
        Ok(raw)
    }

    /// Answers with an error unless the request has an answer; uses the open response if it exists.
    fn answer_error(&self, error: &Error) {
        let raw = match self.state.get() {
            State::Answered { .. } => return,
            State::Open(raw) => raw,
            State::Pending => match self.open() {
                Ok(raw) => raw,
                Err(cause) => return self.lost(&cause),
            },
        };
        self.send(raw, Some(error));
    }

    /// Sends the response. Triton owns it afterwards, even if it returns an error.
    fn send(&self, raw: *mut sys::TRITONBACKEND_Response, error: Option<&Error>) -> bool {
        let success = error.is_none();
        self.state.set(State::Answered { success });
        let error = error.map_or(ptr::null_mut(), |error| {
            to_raw(error, Some(self.context.name()))
        });
        let flags = sys::TRITONSERVER_RESPONSE_COMPLETE_FINAL;
        // SAFETY: the response is open and sent once, since the state says so; Triton copies
        // the error, which stays ours.
        let sent = unsafe {
            let sent = check(sys::TRITONBACKEND_ResponseSend(raw, flags, error));
            if !error.is_null() {
                sys::TRITONSERVER_ErrorDelete(error);
            }
            sent
        };
        self.note("sending a response", sent);
        success
    }

    /// Logs that no response could be created, so the client gets no answer.
    fn lost(&self, error: &Error) {
        self.state.set(State::Answered { success: false });
        log::error!(
            "model '{}': cannot respond to a request: {error}",
            self.context.name()
        );
    }

    fn note(&self, what: &str, result: Result<(), Error>) {
        if let Err(error) = result {
            debug_assert_ne!(error.code(), Code::Cancelled);
            log::error!("model '{}': {what} failed: {error}", self.context.name());
        }
    }
}
