//! The traits that a backend implements.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{Batch, Error, ModelContext, Signature};

/// One loaded version of a model: the state that its instances share.
///
/// Loaded once per model version, dropped when Triton unloads it. `Drop` must join the threads that the model starts, because the library
/// may be unmapped directly afterwards.
///
/// ```no_run
/// use std::sync::Arc;
/// use serde::Deserialize;
/// use triton_backend::{DataType, Error, Model, ModelContext, Signature};
/// # use triton_backend::{Batch, Instance};
///
/// /// The parameters FACTOR and MODE of config.pbtxt.
/// #[derive(Deserialize)]
/// #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
/// struct Parameters {
///     factor: f32,
///     #[serde(default)]
///     mode: Mode,
/// }
///
/// #[derive(Default, Deserialize)]
/// #[serde(rename_all = "lowercase")]
/// enum Mode {
///     #[default]
///     Exact,
///     Fast,
/// }
///
/// struct Scale(Parameters);
/// struct Worker;
///
/// impl Model for Scale {
///     type Parameters = Parameters;
///     type Instance = Worker;
///
///     fn signature(_: &Parameters) -> Signature {
///         Signature::new().input("x", &[DataType::Fp32]).output("y", &[DataType::Fp32])
///     }
///     fn load(_: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
///         if !parameters.factor.is_finite() {
///             return Err(Error::invalid_argument("parameter FACTOR; accepted: a finite number"));
///         }
///         Ok(Scale(parameters))
///     }
///     fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
///         Ok(Worker)
///     }
/// }
/// # impl Instance<Scale> for Worker {
/// #     fn execute(&mut self, _: &Scale, _: &Batch<'_>) -> Result<(), Error> {
/// #         Ok(())
/// #     }
/// # }
/// ```
pub trait Model: Sized + Send + Sync + 'static {
    /// The typed `parameters` of config.pbtxt: derive `serde::Deserialize`, usually with `#[serde(rename_all = "SCREAMING_SNAKE_CASE")]`.
    /// Use `()` for none.
    ///
    /// In config.pbtxt every value is a string; it is parsed into the field's type. The load fails for an unknown key, for a missing key
    /// without a default, and for a value that does not parse. The message names the key, the value and the accepted values. A tuple of
    /// such types shares the keys: each part reads the keys that it knows.
    type Parameters: DeserializeOwned;

    /// The state that each instance owns.
    type Instance: Instance<Self>;

    /// The tensors that this backend accepts. The SDK checks config.pbtxt against them before [`load`](Self::load).
    fn signature(parameters: &Self::Parameters) -> Signature {
        let _ = parameters;
        Signature::any()
    }

    /// Completes a config.pbtxt from the model's files: tensors, `max_batch_size`, the scheduler.
    ///
    /// Returns the whole config as JSON, or `None` to leave the config unchanged. Triton accepts inputs, outputs, `max_batch_size` and a
    /// scheduler if the config does not set them, and ignores every other change. The SDK calls this before it checks parameters and
    /// tensors, and only on a server that allows it (`--disable-auto-complete-config` forbids it). `default_max_batch_size` is the server's
    /// setting for a model that can batch and sets no size.
    ///
    /// # Errors
    /// The load of the model fails with this error.
    fn complete(
        context: &ModelContext,
        default_max_batch_size: usize,
    ) -> Result<Option<serde_json::Value>, Error> {
        let _ = (context, default_max_batch_size);
        Ok(None)
    }

    /// Loads the model.
    ///
    /// # Errors
    /// The load of the model fails with this error.
    fn load(context: &Arc<ModelContext>, parameters: Self::Parameters) -> Result<Self, Error>;

    /// Creates one instance. `instance_group` sets the number of instances.
    ///
    /// # Errors
    /// The load of the model fails with this error.
    fn instance(self: &Arc<Self>) -> Result<Self::Instance, Error>;
}

/// One instance of a model. Triton gives it one batch at a time.
///
/// The instance holds what one request needs to itself, such as buffers that are used again. [`Batch`] has examples of `execute`.
pub trait Instance<M: Model>: Send + 'static {
    /// Answers the requests of a batch, see [`Batch`].
    ///
    /// After an error or a panic the instance is used again: leave no state in it that would break the next batch.
    ///
    /// # Errors
    /// The SDK answers every remaining request with this error.
    fn execute(&mut self, model: &M, batch: &Batch<'_>) -> Result<(), Error>;
}
