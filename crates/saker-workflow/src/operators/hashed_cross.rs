//! HashedCross: combinations of columns by their hash.

use serde::{Deserialize, Serialize};

use super::hash_bucket::{bucket, check_buckets};
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::nvtabular::{Part, Read};
use crate::parameters::HashKey;
use crate::variable::{Variable, joined};

/// The columns' hashes, combined by exclusive or, mod `num_buckets`: one int32 output, named by the columns joined with `_X_`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashedCross {
    /// Number of buckets, at least 1.
    pub num_buckets: u32,
    /// What is hashed.
    #[serde(default)]
    pub hash: HashKey,
}

impl Transform for HashedCross {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        check_buckets(self.num_buckets)
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        vec![inputs.join("_X_")]
    }

    fn of_row_alone(&self) -> bool {
        self.hash == HashKey::Value
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Codes
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        columns.iter().try_for_each(Variable::scalar)?;
        columns.iter().try_for_each(Variable::hashed)?;
        let name = joined(columns, "_X_");
        Ok(vec![bucket(
            name,
            false,
            columns,
            self.num_buckets,
            self.hash,
        )])
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["HashedCross"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let operator = Self {
            num_buckets: node.param("num_buckets")?,
            hash: HashKey::ValueAndRow,
        };
        node.each_group(&operator)
    }
}
