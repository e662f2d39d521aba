//! TargetEncoding: the smoothed mean of a target over the rows that share a key.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::{Map, Value, json};

use super::Operator;
#[cfg(feature = "tables")]
use super::keys::grouped;
use super::keys::{at, check_group, find_row, key_groups, load_tables, table_line};
use super::state::State;
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{self, Accumulator, Finished, Rows};
#[cfg(feature = "tables")]
use crate::ingest::{fold_column, ingest};
use crate::kernels;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read, Record};
use crate::parameters::Grouping;
#[cfg(feature = "tables")]
use crate::parameters::{FloatType, Statistic};
#[cfg(feature = "tables")]
use crate::saved::Files;
use crate::saved::SavedTable;
use crate::variable::Variable;
use crate::vocabulary::GroupTable;

/// (Σ target + p_smooth · mean) / (count + p_smooth) over the fitted rows that share the key; an unseen key gives the mean.
/// float32 outputs named `TE_<key>_<target>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetEncoding {
    /// Numeric input column, needed when fitting only.
    pub target: String,
    /// Weight of the overall mean, in rows.
    #[serde(default = "twenty")]
    pub p_smooth: f64,
    /// Keys: each column by itself, or the combination of all.
    #[serde(default)]
    pub group: Grouping,
    /// Folds (NVTabular's default is 3): with more than 1, the rows that it was fitted on can be encoded by the other folds' targets alone
    /// ([`OutOfFold`](crate::OutOfFold)). All other rows are encoded by all targets.
    #[serde(default = "one_fold", skip_serializing_if = "is_one_fold")]
    pub kfold: u32,
    /// Seed of the draw of each row's fold. Null: rows take the folds in turn.
    #[serde(default = "fold_seed", skip_serializing_if = "is_fold_seed")]
    pub fold_seed: Option<u32>,
}

/// A bound that keeps a slip of the keyboard from filling the memory with tables.
const MOST_FOLDS: u32 = 1 << 16;

fn twenty() -> f64 {
    20.0
}

fn one_fold() -> u32 {
    1
}

fn is_one_fold(kfold: &u32) -> bool {
    *kfold == 1
}

fn fold_seed() -> Option<u32> {
    Some(42)
}

fn is_fold_seed(seed: &Option<u32>) -> bool {
    *seed == fold_seed()
}

/// What TargetEncoding is fitted to: one table a key, and the target's mean.
#[derive(Debug, Clone)]
pub struct Target {
    /// The target's mean over all rows.
    pub mean: f64,
    /// Counts and sums by key.
    pub tables: Vec<Arc<GroupTable>>,
    /// With `kfold`: counts and sums by fold (column `__fold__`) and key, in the order of `tables`.
    pub folds: Vec<Arc<GroupTable>>,
}

/// [`Target`] in `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedTarget {
    mean: f64,
    tables: Vec<SavedTable>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    folds: Vec<SavedTable>,
}

impl State for Target {
    type Saved = SavedTarget;

    fn load(saved: SavedTarget, folder: &Path, _: Option<&Operator>) -> Result<Self, Error> {
        Ok(Self {
            mean: saved.mean,
            tables: load_tables(saved.tables, folder)?,
            folds: load_tables(saved.folds, folder)?,
        })
    }

    #[cfg(feature = "tables")]
    fn save(&self, operator: Option<&Operator>, files: &mut Files) -> Result<SavedTarget, Error> {
        let target = match operator {
            Some(Operator::TargetEncoding(operator)) => operator.target.as_str(),
            _ => "",
        };
        let prefix = format!("target_stats.{target}");
        Ok(SavedTarget {
            mean: self.mean,
            tables: files.groups(&prefix, &self.tables)?,
            folds: files.groups(&prefix, &self.folds)?,
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.tables.iter().map(|table| table_line(table)).collect();
        lines.push(format!("mean {}", self.mean));
        if !self.folds.is_empty() {
            lines.push("and by fold".to_owned());
        }
        lines
    }
}

impl Transform for TargetEncoding {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        check_group(self.group)?;
        if !self.p_smooth.is_finite() || self.p_smooth < 0.0 {
            return Err("p_smooth must be a number, at least 0".to_owned());
        }
        if self.kfold == 0 || self.kfold > MOST_FOLDS {
            return Err("kfold must lie in 1..=65536".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        let keys = self.group.keys(inputs);
        keys.iter().map(|key| self.output_name(key)).collect()
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Numbers
    }

    fn reads_to_fit(&self) -> &[String] {
        std::slice::from_ref(&self.target)
    }

    fn folds(&self) -> Option<(u32, Option<u32>)> {
        (self.kfold > 1).then_some((self.kfold, self.fold_seed))
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let state: &Target = context.state()?;
        let mut outputs = Vec::new();
        let groups = key_groups(self.group, columns).into_iter();
        for (position, ((key, members), table)) in groups.zip(&state.tables).enumerate() {
            let all = self.totals(table, &key, members, context)?;
            let row = find_row(members, table)?;
            outputs.push(match (context.fold, state.folds.get(position)) {
                (Some(fold), Some(by_fold)) => {
                    let key_in_fold = format!("{}_{key}", fold.name);
                    let mut keys = members.to_vec();
                    keys.insert(0, fold.clone());
                    let of_fold = self.totals(by_fold, &key_in_fold, members, context)?;
                    let rows = [&row, &find_row(&keys, by_fold)?];
                    self.out_of_fold(&key, rows, all, of_fold, state.mean)
                }
                _ => self.encoding(&key, &row, &all, state.mean),
            });
        }
        Ok(outputs)
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(Box::new(Running {
            operator: self.clone(),
            groups: Vec::new(),
            folds: Vec::new(),
            moments: fit::Moments::default(),
        }))
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["TargetEncoding"]
    }

    #[cfg(feature = "tables")]
    fn nvtabular_reads_input() -> bool {
        true
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let target = check_target(node)?;
        let records: Vec<Record> = node.state("stats")?;
        let means: std::collections::BTreeMap<String, f64> = node.state("means")?;
        let mean = match means.get(&target) {
            Some(mean) => *mean,
            None => node.param("target_mean")?,
        };
        let out: Option<Value> = node.param("out_col")?;
        if out.is_some() {
            return Err(node.fail("out_col renames its outputs, accepted is null: Rename them"));
        }
        let mut parts = Vec::new();
        let of_all = records
            .iter()
            .filter(|r| !r.name().starts_with(FOLD_PREFIX));
        for record in of_all {
            let key = record.name();
            let names = node.split(&key)?;
            let mut fold_names = names.clone();
            fold_names.insert(0, "__fold__".to_owned());
            let table = |record: &Record, names: &[String]| {
                GroupTable::read(&node.file(&record.path)?, names).map(Arc::new)
            };
            let operator = Self {
                target: target.clone(),
                p_smooth: node.param("p_smooth")?,
                group: Grouping::of(&names),
                kfold: node.param("kfold")?,
                fold_seed: node.param("fold_seed")?,
            };
            let in_folds = format!("{FOLD_PREFIX}_{key}");
            let folds = records.iter().find(|record| record.name() == in_folds);
            let state = Target {
                tables: vec![table(record, &names)?],
                mean,
                folds: (folds.into_iter())
                    .map(|record| table(record, &fold_names))
                    .collect::<Result<_, _>>()?,
            };
            parts.push(Part::new(names, operator, state));
        }
        Ok(parts)
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Target {
            tables,
            mean,
            folds,
        } = export.state()?;
        if self.group != Grouping::Separate {
            return Err(export.no_form("combinations of columns"));
        }
        let params = json!({
            "target_cols": [self.target], "target_mean": null, "kfold": self.kfold, "fold_seed": self.fold_seed,
            "p_smooth": self.p_smooth, "out_col": null, "out_dtype": null, "split_out": null, "split_every": null,
            "on_host": true, "cat_cache": "host", "name_sep": "_", "drop_folds": true,
        });
        let records = export.tables(tables.iter().chain(folds))?;
        let means = Map::from_iter([(self.target.clone(), json!(mean))]);
        let form = Form::new("nvtabular.ops.target_encoding.TargetEncoding").params(params);
        Ok(form.state(json!({ "stats": records, "means": means })))
    }
}

impl TargetEncoding {
    fn output_name(&self, key: &str) -> String {
        format!("TE_{key}_{}", self.target)
    }

    /// Number of rows and sum of the target by row of the table.
    fn totals(
        &self,
        table: &GroupTable,
        key: &str,
        members: &[Variable],
        context: &Context<'_>,
    ) -> Result<Vec<(f64, f64)>, Error> {
        let column = |name: String| {
            let values = table.column(&name).map(|(_, values)| values);
            values.ok_or_else(|| context.not_fitted(members))
        };
        let counts = column(format!("{key}_count"))?.iter().copied();
        let sums = column(format!("{key}_{}_sum", self.target))?
            .iter()
            .copied();
        Ok(counts.zip(sums).collect())
    }

    fn encoding(&self, key: &str, row: &Variable, all: &[(f64, f64)], mean: f64) -> Variable {
        let p_smooth = self.p_smooth;
        let encode = |(count, sum): &(f64, f64)| (sum + p_smooth * mean) / (count + p_smooth);
        let values: Vec<f32> = all.iter().map(|totals| encode(totals) as f32).collect();
        Variable::of(
            self.output_name(key),
            false,
            [row],
            move |arguments, output, _| {
                let rows = arguments.values::<i64>(0);
                kernels::map(rows, output, |row| at(&values, row).unwrap_or(mean as f32));
            },
        )
    }

    /// The encoding of the rows outside the row's fold. The first of `rows` is the key's row in `all`, the second its row in `fold`.
    fn out_of_fold(
        &self,
        key: &str,
        rows: [&Variable; 2],
        all: Vec<(f64, f64)>,
        fold: Vec<(f64, f64)>,
        mean: f64,
    ) -> Variable {
        let p_smooth = self.p_smooth;
        Variable::of(
            self.output_name(key),
            false,
            rows,
            move |arguments, output, _| {
                let (rows, fold_rows) = (arguments.values::<i64>(0), arguments.values::<i64>(1));
                for ((out, &row), &fold_row) in output.iter_mut().zip(rows).zip(fold_rows) {
                    *out = match (at(&all, row), at(&fold, fold_row)) {
                        (Some((count, sum)), Some((fold_count, fold_sum))) => {
                            (sum - fold_sum + p_smooth * mean) / (count - fold_count + p_smooth)
                        }
                        _ => mean,
                    } as f32;
                }
            },
        )
    }
}

/// What the names of NVTabular's tables by fold begin with.
#[cfg(feature = "tables")]
const FOLD_PREFIX: &str = "__fold__";

/// The only target of a node of NVTabular, whose encoding is in float32.
#[cfg(feature = "tables")]
fn check_target(node: &Read<'_>) -> Result<String, Error> {
    let targets: Vec<String> = node.param("target_cols")?;
    let [target] = targets.as_slice() else {
        return Err(node.fail(&format!(
            "it has {} targets, accepted is one: give each a TargetEncoding of its own",
            targets.len()
        )));
    };
    let float64 = (node.float_type("out_dtype")).is_ok_and(|dtype| dtype == FloatType::Float64);
    if float64 && !node.param::<Value>("out_dtype")?.is_null() {
        return Err(node.fail("out_dtype is float64, accepted is float32"));
    }
    Ok(target.clone())
}

#[cfg(feature = "tables")]
#[derive(Debug)]
struct Running {
    operator: TargetEncoding,
    groups: Vec<fit::Groups>,
    folds: Vec<fit::Groups>,
    moments: fit::Moments,
}

#[cfg(feature = "tables")]
impl Accumulator for Running {
    fn update(&mut self, rows: &Rows<'_>) -> Result<(), Error> {
        let operator = &self.operator;
        let values = [ingest(rows.batch, &operator.target)?];
        self.moments.update(&values[0], rows.counts)?;
        let group = operator.group;
        fit::Groups::update_all(&mut self.groups, group, rows.columns, &values, rows.counts)?;
        let folds = operator.folds().and_then(|draw| rows.folds.of(draw));
        let Some(folds) = folds else { return Ok(()) };
        let fold = fold_column(folds)?;
        for (position, (name, members)) in grouped(group, rows.columns).into_iter().enumerate() {
            let mut members = members.to_vec();
            members.insert(0, fold.clone());
            if self.folds.len() == position {
                let name = format!("{}_{name}", fold.name);
                self.folds.push(fit::Groups::new(&name, &members, &values));
            }
            if let Some(groups) = self.folds.get_mut(position) {
                groups.update(&members, &values, rows.counts)?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, operator: &'static str) -> Result<Finished, Error> {
        let target = self.operator.target;
        let tables = |groups: Vec<fit::Groups>| {
            let stats = [Statistic::Count, Statistic::Sum];
            let names = std::slice::from_ref(&target);
            let groups = groups.into_iter();
            groups
                .map(|group| Arc::new(group.finish(names, &stats)))
                .collect()
        };
        let mean = self.moments.mean();
        Ok(Finished::fitted(Target {
            mean: mean.ok_or_else(|| fit::nothing_to_fit(operator, &target))?,
            tables: tables(self.groups),
            folds: tables(self.folds),
        }))
    }
}
