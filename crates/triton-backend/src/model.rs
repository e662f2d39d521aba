//! What a backend implements.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{Batch, Error, ModelContext, Signature};

/// One loaded version of a model: everything its instances share.
///
/// Loaded once per model version, dropped when Triton unloads it. Threads that it starts
/// must be joined in `Drop`: the library may be unmapped right after.
pub trait Model: Sized + Send + Sync + 'static {
    /// The typed `parameters` of config.pbtxt: derive `serde::Deserialize`, usually with
    /// `#[serde(rename_all = "SCREAMING_SNAKE_CASE")]`, and use `()` for none.
    ///
    /// Every value is a string in config.pbtxt and is parsed into the field's type. An
    /// unknown key, a missing one without a default, and a value that does not parse fail the
    /// load with a message that names the key, the value and what is accepted. A tuple of such
    /// types shares the keys: each part reads those that it knows.
    type Parameters: DeserializeOwned;

    /// What each instance owns for itself.
    type Instance: Instance<Self>;

    /// The tensors this backend understands; config.pbtxt is checked against it before
    /// [`load`](Self::load).
    fn signature(parameters: &Self::Parameters) -> Signature {
        let _ = parameters;
        Signature::any()
    }

    /// Completes a config.pbtxt that leaves out what the model's files say: its tensors, `max_batch_size`, the scheduler.
    ///
    /// Returns the whole config as JSON, or `None` to leave the config as it is. Triton takes inputs, outputs,
    /// `max_batch_size` and a scheduler that the config does not choose, and ignores every other change. The SDK calls it
    /// before it checks parameters and tensors, and only on a server that allows it (`--disable-auto-complete-config` does
    /// not). `default_max_batch_size` is the server's setting for a model that can batch and does not say how much.
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

    /// Makes one instance, of the count that `instance_group` asks for.
    ///
    /// # Errors
    /// The load of the model fails with this error.
    fn instance(self: &Arc<Self>) -> Result<Self::Instance, Error>;
}

/// One instance of a model. Triton gives it one batch at a time.
pub trait Instance<M: Model>: Send + 'static {
    /// Answers the requests of a batch, see [`Batch`].
    ///
    /// After an error or a panic the instance is used again: leave nothing in it that the
    /// next batch would trip over.
    ///
    /// # Errors
    /// Every request not answered yet is answered with this error.
    fn execute(&mut self, model: &M, batch: &Batch<'_>) -> Result<(), Error>;
}
