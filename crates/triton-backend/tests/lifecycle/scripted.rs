//! A model whose steps are closures of the test. The fake calls the backend on the test's own thread, so the script is stored in
//! thread-locals.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use triton_backend::{Batch, Error, Instance, Model, ModelContext, Signature, entry_points};
use triton_testing::fake::{Config, Failure, Report, Request, Server};

type Execute = Box<dyn FnMut(&Batch<'_>) -> Result<(), Error>>;
type Load = Box<dyn FnOnce(&Arc<ModelContext>) -> Result<(), Error>>;

type Complete = Box<dyn FnOnce(Value, usize) -> Result<Option<Value>, Error>>;

thread_local! {
    static COMPLETE: RefCell<Option<Complete>> = const { RefCell::new(None) };
    static EXECUTE: RefCell<Option<Execute>> = const { RefCell::new(None) };
    static LOAD: RefCell<Option<Load>> = const { RefCell::new(None) };
    static INSTANCE: RefCell<Option<Result<(), Error>>> = const { RefCell::new(None) };
    static SIGNATURE: RefCell<Option<Signature>> = const { RefCell::new(None) };
    static DROPPED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Parameters {
    #[serde(default)]
    pub(crate) topk: u16,
}

pub(crate) struct Scripted;
pub(crate) struct Worker;

impl Model for Scripted {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        SIGNATURE.take().unwrap_or_else(Signature::any)
    }

    fn complete(context: &ModelContext, default: usize) -> Result<Option<Value>, Error> {
        let complete = COMPLETE.take();
        complete.map_or(Ok(None), |complete| {
            complete(context.config().json().clone().into(), default)
        })
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        assert!(parameters.topk < 1000, "topk {} panics", parameters.topk);
        LOAD.take()
            .map_or(Ok(()), |load| load(context))
            .map(|()| Scripted)
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        match INSTANCE.take() {
            Some(Err(error)) if error.message() == "panic" => panic!("no instance today"),
            Some(result) => result.map(|()| Worker),
            None => Ok(Worker),
        }
    }
}

impl Instance<Scripted> for Worker {
    fn execute(&mut self, _: &Scripted, batch: &Batch<'_>) -> Result<(), Error> {
        let mut execute = EXECUTE.take().expect("a script");
        let result = execute(batch);
        EXECUTE.set(Some(execute));
        result
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push("model"));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push("instance"));
    }
}

pub(crate) fn server() -> Server {
    Server::start("scripted", entry_points::<Scripted>()).expect("the backend starts")
}

pub(crate) fn signature(signature: Signature) {
    SIGNATURE.set(Some(signature));
}

pub(crate) fn on_complete(
    complete: impl FnOnce(Value, usize) -> Result<Option<Value>, Error> + 'static,
) {
    COMPLETE.set(Some(Box::new(complete)));
}

pub(crate) fn on_load(load: impl FnOnce(&Arc<ModelContext>) -> Result<(), Error> + 'static) {
    LOAD.set(Some(Box::new(load)));
}

pub(crate) fn on_instance(result: Result<(), Error>) {
    INSTANCE.set(Some(result));
}

pub(crate) fn on_execute(execute: impl FnMut(&Batch<'_>) -> Result<(), Error> + 'static) {
    EXECUTE.set(Some(Box::new(execute)));
}

/// The names of the objects that were dropped on this thread since the last call.
pub(crate) fn dropped() -> Vec<&'static str> {
    DROPPED.take()
}

pub(crate) fn load_error(config: Config) -> Failure {
    server()
        .load("m", config)
        .map(|_| ())
        .expect_err("the load fails")
}

/// A model with the input `x` and the output `y`, both FP32 vectors.
pub(crate) fn config() -> Config {
    Config::new()
        .input("x", "TYPE_FP32", &[-1])
        .output("y", "TYPE_FP32", &[-1])
}

/// Executes one batch on a fresh model.
pub(crate) fn execute(
    config: Config,
    requests: impl IntoIterator<Item = Request>,
    script: impl FnMut(&Batch<'_>) -> Result<(), Error> + 'static,
) -> Report {
    let server = server();
    let model = server.load("m", config).expect("the model loads");
    on_execute(script);
    model.execute(requests)
}
