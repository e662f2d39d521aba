//! What the tests share.

pub(crate) mod checks;
pub(crate) mod config;
pub(crate) mod gateway;
pub(crate) mod golden;
pub(crate) mod parquet;
pub(crate) mod stage;
pub(crate) mod store;
pub(crate) mod until;
pub(crate) mod workflow;

/// The number in a variable of the environment, where it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is '{text}'; accepted: a whole number")))
}
