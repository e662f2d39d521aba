//! HashBucket: values by their hash.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

#[cfg(feature = "tables")]
use super::Fitted;
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform, each};
use crate::column::{Column, Slice};
use crate::error::Error;
use crate::hash;
use crate::kernels::{self, Number};
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::parameters::HashKey;
use crate::program::Arguments;
use crate::variable::Variable;

/// hash(value) mod `num_buckets`. Integer, float or string; int32 out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashBucket {
    /// Number of buckets, at least 1.
    pub num_buckets: u32,
    /// What is hashed.
    #[serde(default)]
    pub hash: HashKey,
}

impl Transform for HashBucket {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        check_buckets(self.num_buckets)
    }

    fn of_row_alone(&self) -> bool {
        self.hash == HashKey::Value
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Codes
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            column.hashed()?;
            let name = column.name.clone();
            Ok(bucket(
                name,
                column.list,
                std::slice::from_ref(column),
                self.num_buckets,
                self.hash,
            ))
        })
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, _: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        // NVTabular gives the number of buckets as the greatest code here.
        let columns = columns.into_iter();
        columns
            .map(|(name, _)| (name, Some(self.num_buckets as usize)))
            .collect()
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["HashBucket"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|name| {
            Ok(Self {
                num_buckets: node.by_column("num_buckets", name)?,
                hash: HashKey::ValueAndRow,
            })
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        if self.hash == HashKey::Value {
            return Err(export.no_form(
                "hash = \"value\": NVTabular takes in the row number, which is hash = \"value_and_row\"",
            ));
        }
        let params = json!({ "num_buckets": self.num_buckets });
        Ok(Form::new("nvtabular.ops.hash_bucket.HashBucket").params(params))
    }
}

pub(super) fn check_buckets(num_buckets: u32) -> Result<(), String> {
    if num_buckets == 0 || num_buckets > i32::MAX as u32 {
        return Err("num_buckets must lie in 1..=2147483647".to_owned());
    }
    Ok(())
}

/// The columns' hashes, combined, as a bucket each row.
pub(super) fn bucket(
    name: String,
    list: bool,
    columns: &[Variable],
    num_buckets: u32,
    key: HashKey,
) -> Variable {
    let buckets = u64::from(num_buckets);
    let mut bucket = Variable::of(name, list, columns, move |arguments, output, buffers| {
        combined_hashes(arguments, key, &mut buffers.hashes, output.len());
        kernels::map(&buffers.hashes, output, |hash| (hash % buckets) as i32);
    });
    bucket.cardinality = Some(num_buckets as usize);
    bucket
}

/// The hashes of each row's values, combined by exclusive or.
pub(super) fn combined_hashes(
    arguments: &Arguments<'_>,
    key: HashKey,
    hashes: &mut Vec<u64>,
    rows: usize,
) {
    hashes.clear();
    hashes.resize(rows, 0);
    for column in arguments.all() {
        match column.values {
            Slice::Int32(x) => combine(column, x, key, hashes, |x| hash::hash_bits(x.bits())),
            Slice::Int64(x) => combine(column, x, key, hashes, |x| hash::hash_bits(x.bits())),
            Slice::Float32(x) => combine(column, x, key, hashes, |x| hash::hash_bits(x.bits())),
            Slice::Float64(x) => combine(column, x, key, hashes, |x| hash::hash_bits(x.bits())),
            Slice::Bool(x) => combine(column, x, key, hashes, |x| hash::hash_bits(u64::from(x))),
            Slice::String(x) => combine(column, x, key, hashes, hash::hash_bytes),
        }
    }
}

fn combine<T: Copy>(
    column: Column<'_>,
    values: &[T],
    key: HashKey,
    hashes: &mut [u64],
    hash: impl Fn(T) -> u64,
) {
    for ((row, combined), &value) in hashes.iter_mut().enumerate().zip(values) {
        let hash = if column.is_valid(row) {
            hash(value)
        } else {
            hash::NULL
        };
        *combined ^= match key {
            HashKey::Value => hash,
            HashKey::ValueAndRow => hash::hash_with_row(hash, row as u64),
        };
    }
}
