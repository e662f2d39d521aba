//! Loads models of a backend and executes requests on them, as the server does.

use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use triton_rs_sys::{self as sys, EntryPoints};

use super::api;
use super::failure::Failure;
use super::objects::{
    BackendObject, InstanceObject, MessageObject, ModelObject, RequestObject, Violations, c_string,
};
use super::report::Report;
use super::request::{Config, Request};

/// A server's default configuration of a backend.
const BACKEND_CONFIG: &str =
    r#"{"cmdline": {"auto-complete-config": "true", "default-max-batch-size": "4"}}"#;

/// A server with one backend, without its process: it calls the backend's entry points on the thread of the test.
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
///
/// ```no_run
/// use triton_testing::fake::{Input, LoadedModel, Memory, Request};
///
/// /// The same rows, in one buffer and in two, aligned and not.
/// fn placement_does_not_matter(model: &LoadedModel<'_>) {
///     let x = || Input::new("x", &[2], &[1.0f32, 3.0]);
///     let inputs = [x(), x().split(&[4]), x().unaligned(), x().memory(Memory::Pinned)];
///     let requests = inputs.map(|input| Request::new().input(input).output("y"));
///     let report = model.execute(requests);
///     for index in 0..4 {
///         assert_eq!(report.success(index).output::<f32>("y").0, [2.0, 6.0]);
///     }
/// }
/// ```
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
        // SAFETY: the instance is alive and not executing.
        let batch_statistics = unsafe { (*self.instance).batch_statistics.clone() };
        let report = Report::new(returned, &requests, batch_statistics, violations.take());
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
