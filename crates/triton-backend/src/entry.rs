//! The functions that Triton calls, for any [`Model`]. Each is guarded: an error or a panic becomes the returned error or the answer to the
//! requests. Nothing unwinds into C++.

use std::ffi::CStr;
use std::sync::Arc;
use std::{ptr, slice};

use triton_rs_sys as sys;

use crate::borrows::Borrows;
use crate::ffi::{check, entry, guard, text};
use crate::{Batch, Error, Instance, Model, ModelConfig, ModelContext, clock, log, parameters};

/// The lowest backend API version with all functions that the SDK calls: Triton 23.10 added cancellation.
pub const LOWEST_API: (u32, u32) = (1, 16);

/// The entry points of a model type, for tests that run it without a server. A backend library exports them with
/// [`export!`](crate::export).
///
/// ```
/// use std::sync::Arc;
/// use triton_backend::{Batch, DataType, Error, Instance, Model, ModelContext, entry_points};
/// use triton_testing::fake::{Config, Input, Request, Server};
///
/// struct Negate;
/// struct Worker;
///
/// impl Model for Negate {
///     type Parameters = ();
///     type Instance = Worker;
///
///     fn load(_: &Arc<ModelContext>, _: ()) -> Result<Self, Error> {
///         Ok(Negate)
///     }
///     fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
///         Ok(Worker)
///     }
/// }
///
/// impl Instance<Negate> for Worker {
///     fn execute(&mut self, _: &Negate, batch: &Batch<'_>) -> Result<(), Error> {
///         batch.respond_each(|request, response| {
///             let x = request.input("x")?;
///             let negated: Vec<f32> = x.as_slice::<f32>()?.iter().map(|x| -x).collect();
///             response.write("y", x.shape(), &negated)
///         });
///         Ok(())
///     }
/// }
///
/// let server = Server::start("negate", entry_points::<Negate>()).unwrap();
/// let config = Config::new().input("x", "TYPE_FP32", &[-1]).output("y", "TYPE_FP32", &[-1]);
/// let model = server.load("negate", config).unwrap();
/// let request = Request::new().input(Input::new("x", &[2], &[1.0f32, 3.0])).output("y");
/// let report = model.execute([request]);
/// assert_eq!(report.success(0).output::<f32>("y"), (vec![-1.0, -3.0], vec![2]));
/// ```
pub fn entry_points<M: Model>() -> sys::EntryPoints {
    sys::EntryPoints {
        initialize,
        finalize,
        backend_attribute,
        model_initialize: model_initialize::<M>,
        model_finalize: model_finalize::<M>,
        instance_initialize: instance_initialize::<M>,
        instance_finalize: instance_finalize::<M>,
        execute: execute::<M>,
    }
}

/// State attached to a `TRITONBACKEND_Model`.
struct ModelState<M> {
    model: Arc<M>,
    context: Arc<ModelContext>,
}

/// State attached to a `TRITONBACKEND_ModelInstance`.
struct InstanceState<M: Model> {
    instance: M::Instance,
    model: Arc<M>,
    context: Arc<ModelContext>,
}

/// `TRITONBACKEND_Initialize`
///
/// # Safety
/// Triton calls it.
unsafe extern "C" fn initialize(
    backend: *mut sys::TRITONBACKEND_Backend,
) -> *mut sys::TRITONSERVER_Error {
    entry(None, || {
        let (mut major, mut minor) = (0, 0);
        let mut name = ptr::null();
        // SAFETY: the out-pointers are valid, and Triton owns the name.
        let name = unsafe {
            check(sys::TRITONBACKEND_ApiVersion(&mut major, &mut minor))?;
            check(sys::TRITONBACKEND_BackendName(backend, &mut name))?;
            text(name)
        };
        let (lowest_major, lowest_minor) = LOWEST_API;
        if major != lowest_major || minor < lowest_minor {
            return Err(Error::unsupported(format!(
                "backend '{name}' needs Triton's backend API {lowest_major}.{lowest_minor} or a later \
                 {lowest_major}.x (Triton 23.10 or newer); this server has {major}.{minor}"
            )));
        }
        Ok(())
    })
}

/// `TRITONBACKEND_Finalize`
///
/// # Safety
/// Triton calls it.
unsafe extern "C" fn finalize(_: *mut sys::TRITONBACKEND_Backend) -> *mut sys::TRITONSERVER_Error {
    ptr::null_mut()
}

/// `TRITONBACKEND_GetBackendAttribute`
///
/// # Safety
/// Triton calls it.
unsafe extern "C" fn backend_attribute(
    _: *mut sys::TRITONBACKEND_Backend,
    attributes: *mut sys::TRITONBACKEND_BackendAttribute,
) -> *mut sys::TRITONSERVER_Error {
    // `Model: Sync` and `Model::instance(&self)` make it sound to create instances in parallel.
    // SAFETY: Triton's object, alive during the call.
    unsafe { sys::TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attributes, true) }
}

unsafe extern "C" fn model_initialize<M: Model>(
    raw: *mut sys::TRITONBACKEND_Model,
) -> *mut sys::TRITONSERVER_Error {
    // SAFETY: Triton's model, alive during the call.
    let name = unsafe { model_name(raw) };
    entry(Some(&name), || {
        // SAFETY: as above.
        let mut context = unsafe { context(raw, &name)? };
        // SAFETY: as above.
        if let Some(default) = unsafe { completes_with(raw)? }
            && let Some(completed) = M::complete(&context, default)?
        {
            // SAFETY: as above.
            context = unsafe {
                set_config(raw, &completed.to_string())?;
                self::context(raw, &name)?
            };
        }
        log_own_parameters(&context);
        let parameters: M::Parameters = parameters::parse(context.config().parameters())?;
        M::signature(&parameters).check(context.config())?;
        let model = Arc::new(M::load(&context, parameters)?);
        let state = Box::into_raw(Box::new(ModelState { model, context }));
        // SAFETY: the state is ours until `model_finalize`, or until here if Triton refuses it.
        unsafe {
            check(sys::TRITONBACKEND_ModelSetState(raw, state.cast()))
                .inspect_err(|_| drop(Box::from_raw(state)))
        }
    })
}

unsafe extern "C" fn model_finalize<M: Model>(
    raw: *mut sys::TRITONBACKEND_Model,
) -> *mut sys::TRITONSERVER_Error {
    // SAFETY: Triton's model, alive during the call.
    let name = unsafe { model_name(raw) };
    entry(Some(&name), || {
        let mut state = ptr::null_mut();
        // SAFETY: the state is what `model_initialize::<M>` set, NULL when it failed; Triton has
        // finalized the instances before, and calls this once.
        unsafe {
            check(sys::TRITONBACKEND_ModelState(raw, &mut state))?;
            if !state.is_null() {
                check(sys::TRITONBACKEND_ModelSetState(raw, ptr::null_mut()))?;
                drop(Box::from_raw(state.cast::<ModelState<M>>()));
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn instance_initialize<M: Model>(
    raw: *mut sys::TRITONBACKEND_ModelInstance,
) -> *mut sys::TRITONSERVER_Error {
    // SAFETY: Triton's instance and its model, alive during the call.
    let name = unsafe { instance_model(raw).map(|model| model_name(model)) }.unwrap_or_default();
    entry(Some(&name), || {
        // SAFETY: as above; a model whose `model_initialize::<M>` succeeded has our state.
        let state = unsafe {
            let mut state = ptr::null_mut();
            check(sys::TRITONBACKEND_ModelState(
                instance_model(raw)?,
                &mut state,
            ))?;
            state
                .cast::<ModelState<M>>()
                .as_ref()
                .ok_or_else(|| Error::internal("the model of this instance is not loaded"))?
        };
        let (model, context) = (state.model.clone(), state.context.clone());
        let instance = model.instance()?;
        let state = Box::into_raw(Box::new(InstanceState {
            instance,
            model,
            context,
        }));
        // SAFETY: the state is ours until `instance_finalize`, or until here if Triton refuses it.
        unsafe {
            check(sys::TRITONBACKEND_ModelInstanceSetState(raw, state.cast()))
                .inspect_err(|_| drop(Box::from_raw(state)))
        }
    })
}

unsafe extern "C" fn instance_finalize<M: Model>(
    raw: *mut sys::TRITONBACKEND_ModelInstance,
) -> *mut sys::TRITONSERVER_Error {
    entry(None, || {
        let mut state = ptr::null_mut();
        // SAFETY: the state is what `instance_initialize::<M>` set, NULL when it failed; Triton
        // calls this once, after the last execution.
        unsafe {
            check(sys::TRITONBACKEND_ModelInstanceState(raw, &mut state))?;
            if !state.is_null() {
                check(sys::TRITONBACKEND_ModelInstanceSetState(
                    raw,
                    ptr::null_mut(),
                ))?;
                drop(Box::from_raw(state.cast::<InstanceState<M>>()));
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn execute<M: Model>(
    raw: *mut sys::TRITONBACKEND_ModelInstance,
    requests: *mut *mut sys::TRITONBACKEND_Request,
    request_count: u32,
) -> *mut sys::TRITONSERVER_Error {
    let exec_start_ns = clock::now_ns();
    let mut state = ptr::null_mut();
    // SAFETY: Triton's instance, whose state `instance_initialize::<M>` set; Triton executes an
    // instance on one thread at a time, so the reference is exclusive.
    let state = unsafe {
        let got = check(sys::TRITONBACKEND_ModelInstanceState(raw, &mut state));
        match (got, state.cast::<InstanceState<M>>().as_mut()) {
            (Ok(()), Some(state)) => state,
            // The requests are not ours yet: after an error returned here, Triton answers them.
            (Err(error), _) => return entry(None, || Err(error)),
            (Ok(()), None) => {
                return entry(None, || {
                    Err(Error::internal("this instance is not initialized"))
                });
            }
        }
    };
    let InstanceState {
        instance,
        model,
        context,
    } = state;
    // From here on the requests are ours: in every case, they are answered and released below, and NULL is returned.
    let finished = guard(|| {
        let borrows = Borrows::default();
        // SAFETY: Triton passes `request_count` requests and gives up ownership. A slice must not start at NULL, even if it is empty.
        unsafe {
            let requests = match request_count {
                0 => &[][..],
                count => slice::from_raw_parts(requests, count as usize),
            };
            let batch = Batch::new(requests, context, &borrows);
            let result = guard(|| {
                context.intact()?;
                instance.execute(model, &batch)
            });
            batch.finish(raw, exec_start_ns, result);
        }
        Ok(())
    });
    if let Err(error) = finished {
        let _ = guard(|| {
            log::error!(
                "model '{}': answering a batch failed: {error}",
                context.name()
            );
            Ok(())
        });
    }
    ptr::null_mut()
}

/// # Safety
/// `raw` is a live instance.
unsafe fn instance_model(
    raw: *mut sys::TRITONBACKEND_ModelInstance,
) -> Result<*mut sys::TRITONBACKEND_Model, Error> {
    let mut model = ptr::null_mut();
    // SAFETY: per the contract.
    unsafe { check(sys::TRITONBACKEND_ModelInstanceModel(raw, &mut model))? };
    Ok(model)
}

/// # Safety
/// `raw` is a live model.
unsafe fn model_name(raw: *mut sys::TRITONBACKEND_Model) -> String {
    let mut name = ptr::null();
    // SAFETY: per the contract; Triton owns the string, which is copied at once.
    let named = unsafe { check(sys::TRITONBACKEND_ModelName(raw, &mut name)).map(|()| text(name)) };
    named.unwrap_or_default().into_owned()
}

/// # Safety
/// `raw` is a live model.
unsafe fn context(
    raw: *mut sys::TRITONBACKEND_Model,
    name: &str,
) -> Result<Arc<ModelContext>, Error> {
    let mut version = 0;
    let mut artifact_type = sys::TRITONBACKEND_ARTIFACT_FILESYSTEM;
    let mut location = ptr::null();
    let mut message = ptr::null_mut();
    // SAFETY: per the contract; the out-pointers are valid, and Triton owns the location.
    let location = unsafe {
        check(sys::TRITONBACKEND_ModelVersion(raw, &mut version))?;
        check(sys::TRITONBACKEND_ModelRepository(
            raw,
            &mut artifact_type,
            &mut location,
        ))?;
        if artifact_type != sys::TRITONBACKEND_ARTIFACT_FILESYSTEM || location.is_null() {
            return Err(Error::unsupported(
                "the model repository is not a folder of the file system",
            ));
        }
        CStr::from_ptr(location)
    };
    let repository = std::path::PathBuf::from(
        <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(location.to_bytes()),
    );
    // SAFETY: the message is ours, and deleted once, after its text is copied.
    let config = unsafe {
        check(sys::TRITONBACKEND_ModelConfig(raw, 1, &mut message))?;
        let read = json_of(message);
        check(sys::TRITONSERVER_MessageDelete(message))?;
        read?
    };
    let config = ModelConfig::from_json(&config)?;
    ModelContext::new(name, version, repository, config)
}

/// Logs the parameters that the release sets for the model. Only names, because a value may be an address with a password.
fn log_own_parameters(context: &ModelContext) {
    let own = context.release_parameters();
    if let (Some(release), false) = (context.release(), own.is_empty()) {
        log::info!(
            "model '{}' version {}: {} set by release {}, not by config.pbtxt",
            context.name(),
            context.version(),
            own.join(", "),
            release.id
        );
    }
}

/// The server's default of `max_batch_size` if the server allows a backend to complete the config, otherwise `None`.
///
/// # Safety
/// `raw` is a live model.
unsafe fn completes_with(raw: *mut sys::TRITONBACKEND_Model) -> Result<Option<usize>, Error> {
    let mut allowed = false;
    let mut backend = ptr::null_mut();
    let mut message = ptr::null_mut();
    // SAFETY: per the contract; the out-pointers are valid, Triton owns the backend and this message.
    let config = unsafe {
        check(sys::TRITONBACKEND_ModelAutoCompleteConfig(
            raw,
            &mut allowed,
        ))?;
        if !allowed {
            return Ok(None);
        }
        check(sys::TRITONBACKEND_ModelBackend(raw, &mut backend))?;
        check(sys::TRITONBACKEND_BackendConfig(backend, &mut message))?;
        json_of(message)?
    };
    let config: serde_json::Value = serde_json::from_str(&config)
        .map_err(|e| Error::internal(format!("Triton's backend config is not JSON: {e}")))?;
    let default = config.pointer("/cmdline/default-max-batch-size");
    let default = default.and_then(|text| text.as_str()?.parse().ok());
    Ok(Some(default.unwrap_or(0)))
}

/// Replaces the config of a model while Triton initializes it.
///
/// # Safety
/// `raw` is a live model within `TRITONBACKEND_ModelInitialize`.
unsafe fn set_config(raw: *mut sys::TRITONBACKEND_Model, json: &str) -> Result<(), Error> {
    let mut message = ptr::null_mut();
    // SAFETY: per the contract; Triton copies the text, and the message is ours and deleted once, after its last use.
    unsafe {
        check(sys::TRITONSERVER_MessageNewFromSerializedJson(
            &mut message,
            json.as_ptr().cast(),
            json.len(),
        ))?;
        let set = check(sys::TRITONBACKEND_ModelSetConfig(raw, 1, message));
        check(sys::TRITONSERVER_MessageDelete(message))?;
        set
    }
}

/// The JSON text of a message.
///
/// # Safety
/// `message` is a live message.
unsafe fn json_of(message: *mut sys::TRITONSERVER_Message) -> Result<String, Error> {
    let (mut base, mut size) = (ptr::null(), 0);
    // SAFETY: per the contract; the text is `size` bytes that the message owns, copied at once.
    unsafe {
        check(sys::TRITONSERVER_MessageSerializeToJson(
            message, &mut base, &mut size,
        ))
        .map(|()| {
            let bytes: &[u8] = if base.is_null() {
                &[]
            } else {
                slice::from_raw_parts(base.cast(), size)
            };
            String::from_utf8_lossy(bytes).into_owned()
        })
    }
}
