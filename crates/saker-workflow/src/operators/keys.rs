//! Keys: what operators look up in a fitted table, of one column or of a combination.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::column::{Column, DType, Slice};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::ingest::Ingested;
use crate::kernels;
use crate::lookup::{ABSENT, KeyIndex, Lookup};
use crate::parameters::Grouping;
use crate::program::Arguments;
#[cfg(feature = "tables")]
use crate::saved::Files;
use crate::saved::{SavedTable, inside};
use crate::variable::{Variable, joined};
use crate::vocabulary::GroupTable;

/// The keys of a grouping with the columns that form each.
pub(super) fn key_groups(group: Grouping, columns: &[Variable]) -> Vec<(String, &[Variable])> {
    match group {
        Grouping::Separate => columns
            .iter()
            .map(|c| (c.name.clone(), std::slice::from_ref(c)))
            .collect(),
        Grouping::Joint | Grouping::Combo => vec![(joined(columns, "_"), columns)],
    }
}

/// Joint is a grouping of vocabularies alone.
pub(super) fn check_group(group: Grouping) -> Result<(), String> {
    if group == Grouping::Joint {
        return Err("group must be \"separate\" or \"combo\"".to_owned());
    }
    Ok(())
}

/// The row of each key in a table as int64; -1 where it has none.
pub(super) fn find_row(keys: &[Variable], table: &GroupTable) -> Result<Variable, Error> {
    for (key, lookup) in keys.iter().zip(&table.index.columns) {
        key.scalar()?;
        check_key(key, lookup)?;
    }
    let index = Arc::clone(&table.index);
    let find_row = move |arguments: &Arguments<'_>, output: &mut [i64], buffers: &mut _| {
        find(&index, arguments, output, buffers, |row| {
            if row == ABSENT { -1 } else { i64::from(row) }
        });
    };
    Ok(Variable::of(String::new(), false, keys, find_row))
}

/// The value of a row that [`find_row`] found.
#[inline]
pub(super) fn at<T: Copy>(values: &[T], row: i64) -> Option<T> {
    let row = usize::try_from(row).ok()?;
    values.get(row).copied()
}

/// Refuses keys of another type than the fitted ones.
pub(super) fn check_key(key: &Variable, lookup: &Lookup) -> Result<(), Error> {
    key.in_nanoseconds()?;
    let string = lookup.is_string();
    key.require(
        string == (key.dtype == DType::String),
        if string {
            "string, as the fitted keys"
        } else {
            "int32, int64, float32, float64 or bool, as the fitted keys are integers"
        },
    )
}

/// Calls `emit` with each row's place in the table.
pub(super) fn find<T: Copy>(
    index: &KeyIndex,
    arguments: &Arguments<'_>,
    output: &mut [T],
    buffers: &mut crate::program::Buffers,
    emit: impl Fn(u32) -> T,
) {
    let Some(combinations) = &index.combinations else {
        if let Some(lookup) = index.columns.first() {
            look_up(lookup, arguments.get(0), output, emit);
        }
        return;
    };
    const NONE: u128 = u128::MAX;
    let keys = &mut buffers.keys;
    keys.clear();
    keys.resize(output.len(), 0);
    for ((lookup, &radix), column) in index
        .columns
        .iter()
        .zip(&combinations.radix)
        .zip(arguments.all())
    {
        let digit = |key: &mut u128, number: u32| {
            *key = if number == ABSENT || *key == NONE {
                NONE
            } else {
                key.wrapping_mul(radix).wrapping_add(u128::from(number))
            };
        };
        for (row, key) in keys.iter_mut().enumerate() {
            let number = if column.is_valid(row) {
                match column.values {
                    Slice::Int32(x) => x.get(row).map(|&x| lookup.int(i64::from(x))),
                    Slice::Int64(x) => x.get(row).map(|&x| lookup.int(x)),
                    Slice::Float32(x) => x.get(row).map(|&x| lookup.float(f64::from(x))),
                    Slice::Float64(x) => x.get(row).map(|&x| lookup.float(x)),
                    Slice::Bool(x) => x.get(row).map(|&x| lookup.int(i64::from(x))),
                    Slice::String(x) => x.get(row).map(|x| lookup.bytes(x)),
                }
            } else {
                Some(lookup.null())
            };
            digit(key, number.unwrap_or(ABSENT));
        }
    }
    kernels::map(keys, output, |key| {
        emit(match key {
            NONE => ABSENT,
            key => combinations.rows.get(&key).copied().unwrap_or(ABSENT),
        })
    });
}

/// Calls `emit` with each row's place in one column's lookup.
#[inline]
fn look_up<T: Copy>(
    lookup: &Lookup,
    column: Column<'_>,
    output: &mut [T],
    emit: impl Fn(u32) -> T,
) {
    match column.values {
        Slice::Int32(x) => kernels::map(x, output, |v| emit(lookup.int(i64::from(v)))),
        Slice::Int64(x) => kernels::map(x, output, |v| emit(lookup.int(v))),
        Slice::Float32(x) => kernels::map(x, output, |v| emit(lookup.float(f64::from(v)))),
        Slice::Float64(x) => kernels::map(x, output, |v| emit(lookup.float(v))),
        Slice::Bool(x) => kernels::map(x, output, |v| emit(lookup.int(i64::from(v)))),
        Slice::String(x) => kernels::map(x, output, |v| emit(lookup.bytes(v))),
    }
    column.replace_nulls(output, emit(lookup.null()));
}

/// Statistics by key in `workflow.json`: one table a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedGroups {
    tables: Vec<SavedTable>,
}

impl SavedGroups {
    pub(super) fn load(self, folder: &Path) -> Result<Vec<Arc<GroupTable>>, Error> {
        load_tables(self.tables, folder)
    }

    #[cfg(feature = "tables")]
    pub(super) fn save(tables: &[Arc<GroupTable>], files: &mut Files) -> Result<Self, Error> {
        Ok(Self {
            tables: files.groups("cat_stats", tables)?,
        })
    }
}

pub(super) fn load_tables(
    saved: Vec<SavedTable>,
    folder: &Path,
) -> Result<Vec<Arc<GroupTable>>, Error> {
    saved
        .into_iter()
        .map(|table| GroupTable::read(&inside(folder, &table.file)?, &table.keys).map(Arc::new))
        .collect()
}

/// A table in words: its keys and their number.
pub(super) fn table_line(table: &GroupTable) -> String {
    let names: Vec<&str> = table.keys().iter().map(|(name, _)| name.as_str()).collect();
    let rows = table.keys().first().map_or(0, |(_, keys)| keys.len());
    format!("{}: {rows} keys", names.join(", "))
}

/// The keys that a grouping forms of the columns of a batch, by name.
#[cfg(feature = "tables")]
pub(crate) fn grouped(group: Grouping, columns: &[Ingested]) -> Vec<(String, &[Ingested])> {
    match group {
        Grouping::Separate => columns
            .iter()
            .map(|c| (c.name.clone(), std::slice::from_ref(c)))
            .collect(),
        Grouping::Joint | Grouping::Combo => {
            let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
            vec![(names.join("_"), columns)]
        }
    }
}
