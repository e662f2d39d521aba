//! JoinGroupby: statistics of the rows that share a key.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::Operator;
use super::keys::{SavedGroups, at, check_group, find_row, key_groups, table_line};
use super::state::State;
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Finished, Rows};
#[cfg(feature = "tables")]
use crate::ingest::ingest;
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read, Record};
use crate::parameters::{Grouping, Statistic, joined_statistics};
#[cfg(feature = "tables")]
use crate::saved::Files;
use crate::variable::Variable;
use crate::vocabulary::GroupTable;

/// Statistics of `columns` over the fitted rows that share the key. Outputs `<key>_count` and `<key>_<column>_<statistic>`; an unseen key
/// gives count 0 and NaN (NVTabular raises on its count).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinGroupby {
    /// Numeric input columns to aggregate, needed when fitting only.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The statistics.
    #[serde(default = "count")]
    pub stats: Vec<Statistic>,
    /// Keys: each column by itself, or the combination of all.
    #[serde(default)]
    pub group: Grouping,
}

fn count() -> Vec<Statistic> {
    vec![Statistic::Count]
}

/// What JoinGroupby is fitted to: one table a key.
#[derive(Debug, Clone)]
pub struct Groups {
    /// Statistics by key.
    pub tables: Vec<Arc<GroupTable>>,
}

impl State for Groups {
    type Saved = SavedGroups;

    fn load(saved: SavedGroups, folder: &Path, _: Option<&Operator>) -> Result<Self, Error> {
        let tables = saved.load(folder)?;
        Ok(Self { tables })
    }

    #[cfg(feature = "tables")]
    fn save(&self, _: Option<&Operator>, files: &mut Files) -> Result<SavedGroups, Error> {
        SavedGroups::save(&self.tables, files)
    }

    fn lines(&self) -> Vec<String> {
        self.tables.iter().map(|table| table_line(table)).collect()
    }
}

impl Transform for JoinGroupby {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        check_group(self.group)?;
        if self.stats.is_empty() {
            return Err("stats must name at least one statistic".to_owned());
        }
        if self.columns.is_empty() && self.stats.iter().any(|s| *s != Statistic::Count) {
            return Err("columns must name what to aggregate".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        let keys = self.group.keys(inputs);
        keys.iter()
            .flat_map(|key| joined_statistics(key, &self.columns, &self.stats))
            .map(|(name, _)| name)
            .collect()
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn reads_to_fit(&self) -> &[String] {
        &self.columns
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Groups { tables } = context.state()?;
        let mut outputs = Vec::new();
        for ((key, members), table) in key_groups(self.group, columns).into_iter().zip(tables) {
            let row = find_row(members, table)?;
            for (name, (value, _)) in joined_statistics(&key, &self.columns, &self.stats) {
                let (single, values) = table
                    .column(&name)
                    .ok_or_else(|| context.not_fitted(members))?;
                let mean_like = ["_mean", "_std", "_var"]
                    .iter()
                    .any(|suffix| name.ends_with(suffix));
                outputs.push(match value {
                    None => gather(name, &row, values, 0, |x| x as i32),
                    Some(_) if single || mean_like => {
                        gather(name, &row, values, f32::NAN, |x| x as f32)
                    }
                    Some(_) => gather(name, &row, values, f64::NAN, |x| x),
                });
            }
        }
        Ok(outputs)
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(Box::new(Running {
            operator: self.clone(),
            groups: Vec::new(),
        }))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["JoinGroupby"]
    }

    #[cfg(feature = "tables")]
    fn nvtabular_reads_input() -> bool {
        true
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let records: Vec<Record> = node.state("categories")?;
        let columns: Option<Vec<String>> = node.param("cont_cols")?;
        let stats: Vec<Statistic> = node.param("stats")?;
        let mut parts = Vec::new();
        for record in &records {
            let names = node.split(&record.name())?;
            let table = GroupTable::read(&node.file(&record.path)?, &names)?;
            let operator = Self {
                columns: columns.clone().unwrap_or_default(),
                stats: stats.clone(),
                group: Grouping::of(&names),
            };
            let tables = vec![Arc::new(table)];
            parts.push(Part::new(names, operator, Groups { tables }));
        }
        Ok(parts)
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Groups { tables } = export.state()?;
        if self.group != Grouping::Separate {
            return Err(export.no_form("combinations of columns"));
        }
        let params = json!({
            "cont_cols": self.columns, "stats": self.stats, "split_out": null, "split_every": null, "on_host": false,
            "cat_cache": "host", "name_sep": "_",
        });
        let state = json!({ "categories": export.tables(tables)?, "storage_name": {} });
        let form = Form::new("nvtabular.ops.join_groupby.JoinGroupby");
        Ok(form.params(params).state(state))
    }
}

/// A table's value by row, converted once; `absent` where there is no row.
fn gather<T: crate::program::Element>(
    name: String,
    row: &Variable,
    values: &[f64],
    absent: T,
    convert: impl Fn(f64) -> T,
) -> Variable {
    let values: Vec<T> = values.iter().map(|&x| convert(x)).collect();
    Variable::of(name, false, [row], move |arguments, output, _| {
        let rows = arguments.values::<i64>(0);
        kernels::map(rows, output, |row| at(&values, row).unwrap_or(absent));
    })
}

#[cfg(feature = "tables")]
#[derive(Debug)]
struct Running {
    operator: JoinGroupby,
    groups: Vec<fit::Groups>,
}

#[cfg(feature = "tables")]
impl Accumulator for Running {
    fn update(&mut self, rows: &Rows<'_>) -> Result<(), Error> {
        let JoinGroupby { columns, group, .. } = &self.operator;
        let values = columns.iter().map(|name| ingest(rows.batch, name));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        fit::Groups::update_all(&mut self.groups, *group, rows.columns, &values, rows.counts)
    }

    fn finish(self: Box<Self>, _: &'static str) -> Result<Finished, Error> {
        let JoinGroupby { columns, stats, .. } = self.operator;
        let tables = (self.groups.into_iter())
            .map(|group| Arc::new(group.finish(&columns, &stats)))
            .collect();
        Ok(Finished::fitted(Groups { tables }))
    }
}
