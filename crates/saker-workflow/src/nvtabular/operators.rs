//! One node of the graph as operators, with their fitted state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Node, Record};
use crate::definition::{
    FloatType, Function, Grouping, HashKey, IntType, Join, Operator, Properties, Similarity,
    Statistic, TableOperator,
};
use crate::error::Error;
use crate::files::read_parquet;
use crate::fitted::{ColumnStatistics, Fitted};
use crate::similarity::Features;
use crate::vocabulary::{Codes, GroupTable, Vocabulary};

/// An operator with its state.
pub(super) type Fit = (Operator, Fitted);

/// Columns that pass through operators together.
pub(super) type Part = (Vec<String>, Vec<Fit>);

/// What a node does to its columns.
pub(super) enum Step {
    /// Hands them on.
    Pass,
    /// Changes the table's rows or columns.
    Table(Box<TableOperator>, Fitted),
    /// Passes columns through operators, each entry as a chain of its own.
    Each(Vec<Part>),
}

/// A node, and what there is to read it by.
pub(super) struct Read<'a> {
    pub(super) node: &'a Node,
    /// The columns that it takes.
    pub(super) names: Vec<String>,
    /// Where its tables lie.
    pub(super) folder: &'a Path,
}

const FUNCTIONS: &str = "hour, weekday, day and month (unit), datetime (unit), sine (period), cosine (period), compare (is, value), linear (factor, offset), \
     cast (dtype)";

impl Read<'_> {
    pub(super) fn steps(&self) -> Result<Step, Error> {
        let separate = |operator: &dyn Fn(&str) -> Result<Fit, Error>| {
            let step = |name: &String| Ok((vec![name.clone()], vec![operator(name)?]));
            let steps = self.names.iter().map(step).collect::<Result<_, Error>>()?;
            Ok(Step::Each(steps))
        };
        let plain = |operator: Operator| separate(&|_| Ok((operator.clone(), Fitted::Nothing)));
        let one = |name: &str, numbers: BTreeMap<String, f64>| {
            let number = numbers.get(name).copied();
            number
                .map(|number| BTreeMap::from([(name.to_owned(), number)]))
                .ok_or_else(|| self.fail(&format!("its state has no number for '{name}'")))
        };
        match self.node.operator() {
            "SelectionOp" | "ConcatColumns" | "SubsetColumns" | "SubtractionOp" => Ok(Step::Pass),
            "Categorify" => self.categorify(),
            "TargetEncoding" => self.target_encoding(),
            "JoinGroupby" => self.join_groupby(),
            "LambdaOp" | "UDF" => self.lambda(),
            "FillMissing" => plain(Operator::FillMissing {
                value: self.param("fill_val")?,
                add_binary_cols: self.param("add_binary_cols")?,
            }),
            "FillMedian" => separate(&|name| {
                let operator = Operator::FillMedian {
                    add_binary_cols: self.param("add_binary_cols")?,
                };
                let medians = one(name, self.state("medians")?)?;
                Ok((operator, Fitted::Medians { medians }))
            }),
            "Normalize" => separate(&|name| {
                let operator = Operator::Normalize {
                    dtype: self.float_type("out_dtype")?,
                };
                let (means, stds) = (one(name, self.state("means")?)?, one(name, self.state("stds")?)?);
                Ok((operator, Fitted::Moments { means, stds }))
            }),
            "NormalizeMinMax" => separate(&|name| {
                let operator = Operator::NormalizeMinMax {
                    dtype: self.float_type("out_dtype")?,
                };
                let (mins, maxs) = (one(name, self.state("mins")?)?, one(name, self.state("maxs")?)?);
                Ok((operator, Fitted::Extremes { mins, maxs }))
            }),
            "Clip" => plain(Operator::Clip {
                min: self.param("min_value")?,
                max: self.param("max_value")?,
            }),
            "LogOp" => plain(Operator::LogOp),
            "HashBucket" => separate(&|name| {
                let operator = Operator::HashBucket {
                    num_buckets: self.by_column("num_buckets", name)?,
                    hash: HashKey::ValueAndRow,
                };
                Ok((operator, Fitted::Nothing))
            }),
            "HashedCross" => {
                let operator = Operator::HashedCross {
                    num_buckets: self.param("num_buckets")?,
                    hash: HashKey::ValueAndRow,
                };
                let groups = self.groups()?.unwrap_or_else(|| vec![self.names.clone()]);
                let step = |names| (names, vec![(operator.clone(), Fitted::Nothing)]);
                Ok(Step::Each(groups.into_iter().map(step).collect()))
            }
            "Bucketize" => separate(&|name| {
                let operator = Operator::Bucketize {
                    boundaries: self.by_column("boundaries", name)?,
                };
                Ok((operator, Fitted::Nothing))
            }),
            "ListSlice" => plain(Operator::ListSlice {
                start: self.param("start")?,
                // NVTabular's greatest number stands for the list's end.
                end: self.param::<Option<i64>>("end")?.filter(|&end| end != i64::MAX),
                pad: self.param("pad")?,
                pad_value: self.param("pad_value")?,
            }),
            "Rename" => self.rename(),
            "AddMetadata" | "AddTags" | "AddProperties" | "TagAsUserID" | "TagAsItemID"
            | "TagAsUserFeatures" | "TagAsItemFeatures" => plain(Operator::AddMetadata {
                tags: self.tags()?,
                properties: self.param::<Option<Properties>>("properties")?.unwrap_or_default(),
            }),
            "DifferenceLag" => plain(Operator::DifferenceLag {
                partition: self.param("partition_cols")?,
                shift: self.param("shifts")?,
            }),
            "ValueCount" => separate(&|name| {
                let lengths: BTreeMap<String, (usize, usize)> = self.state("lengths")?;
                let lengths = lengths.into_iter().filter(|(column, _)| column == name).collect();
                Ok((Operator::ValueCount, Fitted::Lengths { lengths }))
            }),
            "DropLowCardinality" => {
                let operator = Operator::DropLowCardinality {
                    min_cardinality: self.param("min_cardinality")?,
                };
                let outputs: Vec<&str> = (self.node.output_schema.iter().flatten())
                    .map(|column| column.name.as_str())
                    .collect();
                let kept = self.names.iter().filter(|name| outputs.contains(&name.as_str()));
                // The others need not be made at all.
                let step = |name: &String| {
                    let kept = vec![name.clone()];
                    (kept.clone(), vec![(operator.clone(), Fitted::Columns { kept })])
                };
                Ok(Step::Each(kept.map(step).collect()))
            }
            "ReduceDtypeSize" => separate(&|name| {
                let ranges: BTreeMap<String, (f64, f64)> = self.state("ranges")?;
                let ranges = ranges.into_iter().filter(|(column, _)| column == name).collect();
                Ok((Operator::ReduceDtypeSize, Fitted::Ranges { ranges }))
            }),
            "DataStats" => separate(&|name| {
                let columns: BTreeMap<String, ColumnStatistics> = self.state("columns")?;
                let columns = columns.into_iter().filter(|(column, _)| column == name).collect();
                Ok((Operator::DataStats, Fitted::Statistics { columns }))
            }),
            "ColumnSimilarity" => self.similarity(),
            "Dropna" => {
                let columns = self.names.clone();
                let operator = TableOperator::Dropna { columns };
                Ok(Step::Table(Box::new(operator), Fitted::Nothing))
            }
            "Groupby" => {
                let operator = TableOperator::Groupby {
                    groupby_cols: self.param("groupby_cols")?,
                    sort_cols: self.param("sort_cols")?,
                    ascending: self.param("ascending")?,
                    aggs: self.param("aggs")?,
                    name_sep: self.param("name_sep")?,
                };
                Ok(Step::Table(Box::new(operator), Fitted::Nothing))
            }
            "JoinExternal" => {
                let path = self.file(&self.param::<PathBuf>("path")?)?;
                let operator = TableOperator::JoinExternal {
                    on: self.param("on")?,
                    on_ext: self.param("on_ext")?,
                    how: self.param::<Join>("how")?,
                    columns_ext: self.param("columns_ext")?,
                    // The table was saved without them.
                    drop_duplicates_ext: false,
                    path: path.clone(),
                };
                let state = Fitted::External(Arc::new(read_parquet(&path)?));
                Ok(Step::Table(Box::new(operator), state))
            }
            "Filter" => Err(self.fail(&format!(
                "{} is a Python function, which cannot be read. Filter the table before the workflow, or write the condition into the \
                 definition: {{ op = \"Filter\", condition = {{ column = \"price\", is = \">=\", value = 0 }} }}",
                self.callable()
            ))),
            other => Err(self.fail(&format!("there is no operator '{other}' here"))),
        }
    }

    fn categorify(&self) -> Result<Step, Error> {
        let starts: Option<BTreeMap<String, usize>> = if self.param("single_table")? {
            let Some(starts) = self.state("starts")? else {
                return Err(self.fail(
                    "single_table is true, and op_state.starts, the first code of each column, is missing: export the workflow \
                     with scripts/export-nvtabular",
                ));
            };
            Some(starts)
        } else {
            None
        };
        let records: Vec<Record> = self.state("categories")?;
        let storage: BTreeMap<String, String> = self.state("storage_name")?;
        let combo = self.param::<String>("encode_type")? == "combo";
        let mut steps: Vec<Part> = Vec::new();
        for record in &records {
            let stored = record.key.join("_");
            let mut names: Vec<String> = (self.names.iter())
                .filter(|name| {
                    storage
                        .get(*name)
                        .map_or(**name == stored, |other| *other == stored)
                })
                .cloned()
                .collect();
            if combo {
                // A column may be in several combinations, of which the state tells only one.
                names = self.split(&stored)?;
            }
            let Some(first) = names.first() else { continue };
            let buckets = self
                .by_column::<Option<usize>>("num_buckets", first)?
                .unwrap_or(1);
            let operator = Operator::Categorify {
                freq_threshold: self
                    .by_column::<Option<u64>>("freq_threshold", first)?
                    .unwrap_or(0),
                max_size: self
                    .by_column::<Option<usize>>("max_size", first)?
                    .unwrap_or(0),
                num_buckets: buckets,
                encode_type: match names.len() {
                    1 => Grouping::Separate,
                    _ if combo => Grouping::Combo,
                    _ => Grouping::Joint,
                },
                padding: None,
                dtype: self.int_type("dtype")?,
                hash: HashKey::ValueAndRow,
            };
            let path = self.file(&record.path)?;
            let codes = match &starts {
                None => Codes::new(buckets),
                Some(starts) => {
                    let start = starts.get(&stored).ok_or_else(|| {
                        self.fail(&format!("op_state.starts has no number for '{stored}'"))
                    })?;
                    Codes::in_single_table(&path, *start)?
                }
            };
            let vocabulary = Vocabulary::read_with(&path, &stored, codes)?;
            let state = Fitted::Vocabularies(vec![Arc::new(vocabulary)]);
            steps.push((names, vec![(operator, state)]));
        }
        Ok(Step::Each(steps))
    }

    fn target_encoding(&self) -> Result<Step, Error> {
        let targets: Vec<String> = self.param("target_cols")?;
        let [target] = targets.as_slice() else {
            return Err(self.fail(&format!(
                "it has {} targets, accepted is one: give each a TargetEncoding of its own",
                targets.len()
            )));
        };
        if self
            .float_type("out_dtype")
            .is_ok_and(|dtype| dtype == FloatType::Float64)
            && (self.node.op_params.get("out_dtype")).is_some_and(|dtype| !dtype.is_null())
        {
            return Err(self.fail("out_dtype is float64, accepted is float32"));
        }
        let records: Vec<Record> = self.state("stats")?;
        let means: BTreeMap<String, f64> = self.state("means")?;
        let mean = match means.get(target) {
            Some(mean) => *mean,
            None => self.param("target_mean")?,
        };
        let out: Option<Value> = self.param("out_col")?;
        if out.is_some() {
            return Err(self.fail("out_col renames its outputs, accepted is null: Rename them"));
        }
        let folds = |key: &str| {
            let key = format!("__fold___{key}");
            records.iter().find(|record| record.key.join("_") == key)
        };
        let mut steps = Vec::new();
        for record in records
            .iter()
            .filter(|r| !r.key.join("_").starts_with("__fold__"))
        {
            let key = record.key.join("_");
            let names = self.split(&key)?;
            let mut fold_names = names.clone();
            fold_names.insert(0, "__fold__".to_owned());
            let table = |record: &Record, names: &[String]| {
                GroupTable::read(&self.file(&record.path)?, names).map(Arc::new)
            };
            let operator = Operator::TargetEncoding {
                target: target.clone(),
                p_smooth: self.param("p_smooth")?,
                group: grouping(&names),
                kfold: self.param("kfold")?,
                fold_seed: self.param("fold_seed")?,
            };
            let state = Fitted::Target {
                tables: vec![table(record, &names)?],
                mean,
                folds: (folds(&key).into_iter())
                    .map(|record| table(record, &fold_names))
                    .collect::<Result<_, _>>()?,
            };
            steps.push((names, vec![(operator, state)]));
        }
        Ok(Step::Each(steps))
    }

    fn join_groupby(&self) -> Result<Step, Error> {
        let records: Vec<Record> = self.state("categories")?;
        let columns: Option<Vec<String>> = self.param("cont_cols")?;
        let stats: Vec<Statistic> = self.param("stats")?;
        let mut steps = Vec::new();
        for record in &records {
            let names = self.split(&record.key.join("_"))?;
            let table = GroupTable::read(&self.file(&record.path)?, &names)?;
            let operator = Operator::JoinGroupby {
                columns: columns.clone().unwrap_or_default(),
                stats: stats.clone(),
                group: grouping(&names),
            };
            steps.push((
                names,
                vec![(operator, Fitted::Groups(vec![Arc::new(table)]))],
            ));
        }
        Ok(Step::Each(steps))
    }

    fn lambda(&self) -> Result<Step, Error> {
        let functions: Option<Vec<Function>> = self.param("functions")?;
        let Some(functions) = functions else {
            return Err(self.fail(&format!(
                "{} is a Python function, which cannot be read. The functions that there are: {FUNCTIONS}. \
                 scripts/export-nvtabular recognises them by what they compute",
                self.callable()
            )));
        };
        let steps = functions
            .iter()
            .map(|&function| (Operator::LambdaOp(function), Fitted::Nothing));
        let steps: Vec<_> = steps.collect();
        Ok(Step::Each(
            self.names
                .iter()
                .map(|name| (vec![name.clone()], steps.clone()))
                .collect(),
        ))
    }

    fn rename(&self) -> Result<Step, Error> {
        // The schema tells what a Python function made of the names, too.
        let outputs = self.node.output_schema.iter().flatten();
        let outputs: Vec<String> = outputs.map(|column| column.name.clone()).collect();
        if outputs.len() != self.names.len() {
            return Err(self.fail(&format!(
                "its output_schema names {} columns",
                outputs.len()
            )));
        }
        let steps = self.names.iter().zip(outputs).map(|(column, name)| {
            let rename = Operator::Rename {
                name: Some(name),
                postfix: None,
            };
            (vec![column.clone()], vec![(rename, Fitted::Nothing)])
        });
        Ok(Step::Each(steps.collect()))
    }

    fn similarity(&self) -> Result<Step, Error> {
        let left = self.file(&self.param::<PathBuf>("left")?)?;
        let right = match self.param::<Option<PathBuf>>("right")? {
            Some(right) => Some(self.file(&right)?),
            None => None,
        };
        // The matrices were saved as NVTabular weights them.
        let features = Arc::new(Features::read(&left, Similarity::Inner)?);
        let other = match &right {
            Some(right) => Arc::new(Features::read(right, Similarity::Inner)?),
            None => Arc::clone(&features),
        };
        let operator = Operator::ColumnSimilarity {
            left,
            right,
            metric: Similarity::Inner,
            dtype: FloatType::Float64,
        };
        let groups = self.groups()?.unwrap_or_else(|| vec![self.names.clone()]);
        let step = |names| {
            let state = Fitted::Similarity(Arc::clone(&features), Arc::clone(&other));
            (names, vec![(operator.clone(), state)])
        };
        Ok(Step::Each(groups.into_iter().map(step).collect()))
    }

    /// The columns whose names, joined by `_`, make this key.
    fn split(&self, key: &str) -> Result<Vec<String>, Error> {
        fn search(key: &str, names: &[String]) -> Option<Vec<String>> {
            names.iter().find_map(|name| {
                let rest = key.strip_prefix(name.as_str())?;
                if rest.is_empty() {
                    return Some(vec![name.clone()]);
                }
                let mut found = search(rest.strip_prefix('_')?, names)?;
                found.insert(0, name.clone());
                Some(found)
            })
        }
        search(key, &self.names).ok_or_else(|| {
            self.fail(&format!(
                "its state has the key '{key}', which is no combination of the columns {} joined by '_'",
                self.names.join(", ")
            ))
        })
    }

    /// The combinations of columns, where the exporter noted them: `graph.json` itself has the names alone.
    fn groups(&self) -> Result<Option<Vec<Vec<String>>>, Error> {
        self.param("groups")
    }

    fn tags(&self) -> Result<Vec<String>, Error> {
        let tags: Option<Vec<String>> = self.param("tags")?;
        let tags = tags.unwrap_or_default();
        // "Tags.USER_ID" is how Python shows the tag `user_id`.
        Ok((tags.iter())
            .map(|tag| match tag.strip_prefix("Tags.") {
                Some(name) => name.to_lowercase(),
                None => tag.clone(),
            })
            .collect())
    }

    fn callable(&self) -> String {
        #[derive(Deserialize)]
        struct Callable {
            module: String,
            qualname: String,
        }
        match self.param::<Option<Callable>>("f") {
            Ok(Some(f)) => format!("'{}.{}'", f.module, f.qualname),
            _ => "its condition or function".to_owned(),
        }
    }

    fn float_type(&self, name: &str) -> Result<FloatType, Error> {
        match self.dtype(name)?.as_deref() {
            None => Ok(FloatType::Float64),
            Some(dtype) if dtype.contains("float64") || dtype.ends_with("f8") => {
                Ok(FloatType::Float64)
            }
            Some(dtype) if dtype.contains("float32") || dtype.ends_with("f4") => {
                Ok(FloatType::Float32)
            }
            Some(other) => {
                Err(self.fail(&format!("{name} is {other}, accepted: float32, float64")))
            }
        }
    }

    fn int_type(&self, name: &str) -> Result<IntType, Error> {
        match self.dtype(name)?.as_deref() {
            None => Ok(IntType::Int64),
            Some(dtype) if dtype.contains("int64") || dtype.ends_with("i8") => Ok(IntType::Int64),
            Some(dtype) if dtype.contains("int32") || dtype.ends_with("i4") => Ok(IntType::Int32),
            Some(other) => Err(self.fail(&format!("{name} is {other}, accepted: int32, int64"))),
        }
    }

    /// NVTabular writes a type as `{"name": ...}`, by one of NumPy's names for it: `float32`, `<f4`, `<class 'numpy.float32'>`.
    fn dtype(&self, name: &str) -> Result<Option<String>, Error> {
        let dtype: Option<Value> = self.param(name)?;
        Ok(dtype.and_then(|dtype| match dtype {
            Value::String(name) => Some(name),
            other => other.get("name").and_then(Value::as_str).map(str::to_owned),
        }))
    }

    fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.value("op_params", self.node.op_params.get(name), name)
    }

    /// A parameter for one column, where it is given by column.
    fn by_column<T: DeserializeOwned>(&self, name: &str, column: &str) -> Result<T, Error> {
        match self.node.op_params.get(name) {
            Some(Value::Object(columns)) => self.value("op_params", columns.get(column), name),
            value => self.value("op_params", value, name),
        }
    }

    fn state<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.value("op_state", self.node.op_state.get(name), name)
    }

    fn value<T: DeserializeOwned>(
        &self,
        part: &str,
        value: Option<&Value>,
        name: &str,
    ) -> Result<T, Error> {
        T::deserialize(value.unwrap_or(&Value::Null))
            .map_err(|error| self.fail(&format!("{part}.{name}: {error}")))
    }

    /// A file of the node's folder.
    fn file(&self, path: &Path) -> Result<PathBuf, Error> {
        crate::saved::inside(self.folder, path)
    }

    fn fail(&self, message: &str) -> Error {
        Error::definition(&self.names.join(", "), message)
    }
}

fn grouping(names: &[String]) -> Grouping {
    if names.len() > 1 {
        Grouping::Combo
    } else {
        Grouping::Separate
    }
}
