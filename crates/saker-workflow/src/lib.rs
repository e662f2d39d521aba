//! Feature transforms with the semantics of NVTabular 23.8: operators, fitting, applying, and the on-disk format.

mod definition;
mod error;

pub use definition::{
    Chain, Definition, FloatType, Function, Grouping, HashKey, IntType, Operator, Statistic,
};
pub use error::Error;
