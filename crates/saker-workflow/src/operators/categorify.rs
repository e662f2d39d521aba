//! Categorify: values as codes of a fitted vocabulary.

#[cfg(feature = "tables")]
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::{Map, Value, json};

#[cfg(feature = "tables")]
use super::Fitted;
use super::Operator;
use super::hash_bucket::combined_hashes;
#[cfg(feature = "tables")]
use super::keys::grouped;
use super::keys::{check_key, find};
#[cfg(feature = "tables")]
use super::state::InFitted;
use super::state::State;
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::column::Slice;
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::fit::{Accumulator, Counter, Finished, Rows};
use crate::lookup::ABSENT;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read, Record};
use crate::parameters::{Grouping, HashKey, IntType};
use crate::program::{Arguments, Buffers, Element};
#[cfg(feature = "tables")]
use crate::saved::Files;
use crate::saved::{SavedTable, inside};
use crate::variable::{Variable, joined};
use crate::vocabulary::{Codes, PADDING_CODE, Vocabulary};

/// Encodes values by a fitted vocabulary: 0 padding, 1 null, then `num_buckets` out-of-vocabulary codes from 2, then the
/// vocabulary, most frequent value first (ties by value). Integer, string or list column; integer out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Categorify {
    /// Values seen fewer times stay out of the vocabulary. 0: all enter. Not together with `max_size`.
    #[serde(default)]
    pub freq_threshold: u64,
    /// Greatest cardinality, reserved codes included; the least frequent values stay out. 0: no limit.
    #[serde(default)]
    pub max_size: usize,
    /// Out-of-vocabulary codes; a value's code among them is chosen by its hash.
    #[serde(default = "one")]
    pub num_buckets: usize,
    /// What several columns share.
    #[serde(default)]
    pub encode_type: Grouping,
    /// The raw integer that stands for no value (say -1 in a padded candidate list): encoded as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<i64>,
    /// Element type of the codes (NVTabular's default is int64).
    #[serde(default)]
    pub dtype: IntType,
    /// What is hashed when `num_buckets` > 1.
    #[serde(default)]
    pub hash: HashKey,
}

fn one() -> usize {
    1
}

impl Default for Categorify {
    fn default() -> Self {
        Self {
            freq_threshold: 0,
            max_size: 0,
            num_buckets: one(),
            encode_type: Grouping::Separate,
            padding: None,
            dtype: IntType::Int32,
            hash: HashKey::Value,
        }
    }
}

/// What Categorify is fitted to: one vocabulary a key.
#[derive(Debug, Clone)]
pub struct Vocabularies {
    /// In the order of the keys.
    pub vocabularies: Vec<Arc<Vocabulary>>,
}

/// [`Vocabularies`] in `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedVocabularies {
    vocabularies: Vec<SavedTable>,
}

impl State for Vocabularies {
    type Saved = SavedVocabularies;

    fn load(
        saved: SavedVocabularies,
        folder: &Path,
        operator: Option<&Operator>,
    ) -> Result<Self, Error> {
        let (buckets, combo) = match operator {
            Some(Operator::Categorify(categorify)) => (
                categorify.num_buckets,
                categorify.encode_type == Grouping::Combo,
            ),
            _ => (1, false),
        };
        let vocabularies = saved.vocabularies.into_iter().map(|saved| {
            let path = inside(folder, &saved.file)?;
            let codes = match saved.start {
                None => Codes::new(buckets),
                Some(start) => Codes::in_single_table(&path, start)?,
            };
            let vocabulary = Vocabulary::read_with(&path, &saved.name, codes)?;
            if vocabulary.columns().len() > 1 && !combo {
                return Err(Error::file(
                    &path,
                    format!("expected one key column '{}'", saved.name),
                ));
            }
            Ok(Arc::new(vocabulary))
        });
        let vocabularies = vocabularies.collect::<Result<_, Error>>()?;
        Ok(Self { vocabularies })
    }

    #[cfg(feature = "tables")]
    fn save(&self, _: Option<&Operator>, files: &mut Files) -> Result<SavedVocabularies, Error> {
        let vocabularies = self.vocabularies.iter();
        let vocabularies = vocabularies.map(|vocabulary| files.vocabulary(vocabulary));
        Ok(SavedVocabularies {
            vocabularies: vocabularies.collect::<Result<_, Error>>()?,
        })
    }

    fn lines(&self) -> Vec<String> {
        (self.vocabularies.iter())
            .map(|v| format!("{}: {} values, codes from {}", v.name(), v.len(), v.start()))
            .collect()
    }
}

impl Transform for Categorify {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        let Self {
            freq_threshold,
            max_size,
            num_buckets,
            ..
        } = self;
        if *num_buckets == 0 {
            return Err("num_buckets must be at least 1".to_owned());
        }
        if *freq_threshold > 0 && *max_size > 0 {
            return Err("freq_threshold and max_size cannot be given together".to_owned());
        }
        if *max_size > 0 && *max_size < num_buckets + 2 {
            return Err("max_size must be 0 (no limit) or at least num_buckets + 2".to_owned());
        }
        Ok(())
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        match self.encode_type {
            Grouping::Combo => vec![inputs.join("_")],
            Grouping::Separate | Grouping::Joint => inputs.to_vec(),
        }
    }

    fn of_row_alone(&self) -> bool {
        self.hash == HashKey::Value
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Codes
    }

    fn compile(&self, columns: &[Variable], context: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let Vocabularies { vocabularies } = context.state()?;
        let vocabulary = |position: usize| {
            let vocabulary = vocabularies.get(position);
            vocabulary.ok_or_else(|| context.not_fitted(columns))
        };
        let alone = |column: &Variable, position: usize| {
            let keys = std::slice::from_ref(column);
            self.encode(column.name.clone(), vocabulary(position)?, keys)
        };
        match self.encode_type {
            Grouping::Separate => (columns.iter().enumerate())
                .map(|(position, column)| alone(column, position))
                .collect(),
            Grouping::Joint => columns.iter().map(|column| alone(column, 0)).collect(),
            Grouping::Combo => {
                if columns.len() > 1 {
                    columns.iter().try_for_each(Variable::scalar)?;
                }
                let name = joined(columns, "_");
                Ok(vec![self.encode(name, vocabulary(0)?, columns)?])
            }
        }
    }

    #[cfg(feature = "tables")]
    fn accumulator(&self) -> Option<Box<dyn Accumulator>> {
        Some(Box::new(Running {
            operator: self.clone(),
            counters: Vec::new(),
        }))
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, fitted: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        let names: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
        let outputs = self.output_names(&names).into_iter().enumerate();
        let outputs = outputs.map(|(position, name)| {
            let vocabulary = Vocabularies::of(fitted).and_then(|state| {
                // Columns that share a vocabulary share the only one.
                let vocabularies = &state.vocabularies;
                vocabularies.get(position).or(vocabularies.first())
            });
            (name, vocabulary.map(|v| v.cardinality() - 1))
        });
        outputs.collect()
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["Categorify"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        let starts = starts(node)?;
        let records: Vec<Record> = node.state("categories")?;
        let storage: BTreeMap<String, String> = node.state("storage_name")?;
        let combo = node.param::<String>("encode_type")? == "combo";
        let mut parts = Vec::new();
        for record in &records {
            let stored = record.name();
            let names = if combo {
                // A column may be in several combinations, of which the state tells only one.
                node.split(&stored)?
            } else {
                stored_columns(node, &storage, &stored)
            };
            let Some(first) = names.first() else { continue };
            let operator = Self::read(node, first, names.len(), combo)?;
            let path = node.file(&record.path)?;
            let codes = match &starts {
                None => Codes::new(operator.num_buckets),
                Some(starts) => {
                    let start = starts.get(&stored).ok_or_else(|| {
                        node.fail(&format!("op_state.starts has no number for '{stored}'"))
                    })?;
                    Codes::in_single_table(&path, *start)?
                }
            };
            let vocabulary = Vocabulary::read_with(&path, &stored, codes)?;
            let vocabularies = vec![Arc::new(vocabulary)];
            parts.push(Part::new(names, operator, Vocabularies { vocabularies }));
        }
        Ok(parts)
    }

    #[cfg(feature = "tables")]
    fn export(&self, export: &Export<'_>) -> Result<Form, Error> {
        let Vocabularies { vocabularies } = export.state()?;
        self.check_export(vocabularies)
            .map_err(|what| export.no_form(what))?;
        let storage: Map<String, Value> = match self.encode_type {
            Grouping::Joint => (export.names())
                .flat_map(|name| Some((name.to_owned(), json!(vocabularies.first()?.name()))))
                .collect(),
            _ => Map::new(),
        };
        let params = json!({
            "freq_threshold": self.freq_threshold, "max_size": self.max_size, "encode_type": "joint",
            "num_buckets": if self.num_buckets > 1 { json!(self.num_buckets) } else { Value::Null },
            "dtype": { "name": match self.dtype { IntType::Int32 => "<i4", IntType::Int64 => "<i8" } },
            "cat_cache": "host", "on_host": false, "name_sep": "_", "search_sorted": false, "single_table": false,
            "cardinality_memory_limit": null, "split_out": 1, "split_every": 8,
        });
        let records = vocabularies.iter().map(|v| export.vocabulary(v));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let form = Form::new("nvtabular.ops.categorify.Categorify").params(params);
        Ok(form.state(json!({ "categories": records, "storage_name": storage })))
    }
}

impl Categorify {
    /// The codes of keys, under this name.
    fn encode(
        &self,
        name: String,
        vocabulary: &Arc<Vocabulary>,
        keys: &[Variable],
    ) -> Result<Variable, Error> {
        for (key, lookup) in keys.iter().zip(&vocabulary.index().columns) {
            check_key(key, lookup)?;
        }
        let encoder = Encoder {
            vocabulary: Arc::clone(vocabulary),
            num_buckets: self.num_buckets as u64,
            padding: self.padding.filter(|_| keys.len() == 1),
            hash: self.hash,
        };
        let list = keys.iter().any(|key| key.list);
        let mut column = match self.dtype {
            IntType::Int32 => encoder.column(name, list, keys, |code| code as i32),
            IntType::Int64 => encoder.column(name, list, keys, |code| code as i64),
        };
        column.cardinality = Some(vocabulary.cardinality());
        column.vocabulary = Some(Arc::clone(vocabulary));
        Ok(column)
    }

    /// The parameters of a node of NVTabular for some of its columns, of which this is the first.
    #[cfg(feature = "tables")]
    fn read(node: &Read<'_>, first: &str, columns: usize, combo: bool) -> Result<Self, Error> {
        let num_buckets = node.by_column::<Option<usize>>("num_buckets", first)?;
        let freq_threshold = node.by_column::<Option<u64>>("freq_threshold", first)?;
        let max_size = node.by_column::<Option<usize>>("max_size", first)?;
        Ok(Self {
            freq_threshold: freq_threshold.unwrap_or(0),
            max_size: max_size.unwrap_or(0),
            num_buckets: num_buckets.unwrap_or(1),
            encode_type: match columns {
                1 => Grouping::Separate,
                _ if combo => Grouping::Combo,
                _ => Grouping::Joint,
            },
            padding: None,
            dtype: node.int_type("dtype")?,
            hash: HashKey::ValueAndRow,
        })
    }

    /// Refuses what NVTabular has no parameters for.
    #[cfg(feature = "tables")]
    fn check_export(&self, vocabularies: &[Arc<Vocabulary>]) -> Result<(), &'static str> {
        if self.padding.is_some() {
            return Err("padding");
        }
        if self.num_buckets > 1 && self.hash == HashKey::Value {
            return Err(
                "hash = \"value\": NVTabular takes in the row number, which is hash = \"value_and_row\"",
            );
        }
        if vocabularies.iter().any(|v| v.in_single_table()) {
            return Err("codes in a table that columns share (single_table)");
        }
        if self.encode_type == Grouping::Combo {
            return Err("combinations of columns");
        }
        Ok(())
    }
}

/// From keys to codes.
struct Encoder {
    vocabulary: Arc<Vocabulary>,
    num_buckets: u64,
    /// The value that stands for none, of a single key.
    padding: Option<i64>,
    hash: HashKey,
}

impl Encoder {
    fn column<T: Element + PartialEq>(
        self,
        name: String,
        list: bool,
        keys: &[Variable],
        code: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Variable {
        Variable::of(name, list, keys, move |arguments, output, buffers| {
            self.encode(arguments, output, buffers, &code);
        })
    }

    fn encode<T: Copy + PartialEq>(
        &self,
        arguments: &Arguments<'_>,
        output: &mut [T],
        buffers: &mut Buffers,
        code: impl Fn(usize) -> T,
    ) {
        let Codes {
            start,
            null,
            unseen,
        } = self.vocabulary.codes();
        // With buckets, the code of an unseen value follows from its hash: -1 until then.
        let absent = code(if self.num_buckets > 1 {
            usize::MAX
        } else {
            unseen
        });
        find(self.vocabulary.index(), arguments, output, buffers, |row| {
            if row == ABSENT {
                absent
            } else {
                code(start + row as usize)
            }
        });
        if self.num_buckets > 1 {
            combined_hashes(arguments, self.hash, &mut buffers.hashes, output.len());
            for (out, hash) in output.iter_mut().zip(&buffers.hashes) {
                if *out == absent {
                    *out = code(unseen + (*hash % self.num_buckets) as usize);
                }
            }
        }
        // A combination is null only when all its parts are.
        if arguments.all().all(|column| column.may_miss()) {
            for (row, out) in output.iter_mut().enumerate() {
                if arguments.all().all(|column| column.is_missing(row)) {
                    *out = code(null);
                }
            }
        }
        if let Some(padding) = self.padding {
            pad(arguments.get(0).values, padding, output, code(PADDING_CODE));
        }
    }
}

/// Writes `code` where an integer is `padding`.
fn pad<T: Copy>(values: Slice<'_>, padding: i64, output: &mut [T], code: T) {
    match values {
        Slice::Int32(x) => {
            for (out, &x) in output.iter_mut().zip(x) {
                if i64::from(x) == padding {
                    *out = code;
                }
            }
        }
        Slice::Int64(x) => {
            for (out, &x) in output.iter_mut().zip(x) {
                if x == padding {
                    *out = code;
                }
            }
        }
        Slice::Float32(_) | Slice::Float64(_) | Slice::Bool(_) | Slice::String(_) => {}
    }
}

/// The first code of each column, where the columns of a node of NVTabular share a table.
#[cfg(feature = "tables")]
fn starts(node: &Read<'_>) -> Result<Option<BTreeMap<String, usize>>, Error> {
    if !node.param::<bool>("single_table")? {
        return Ok(None);
    }
    let starts = node.state::<Option<_>>("starts")?;
    let starts = starts.ok_or_else(|| {
        node.fail(
            "single_table is true, and op_state.starts, the first code of each column, is missing: export the workflow \
             with scripts/export-nvtabular",
        )
    })?;
    Ok(Some(starts))
}

/// The columns whose vocabulary NVTabular stored under this name: `storage` has the name by column where it differs.
#[cfg(feature = "tables")]
fn stored_columns(
    node: &Read<'_>,
    storage: &BTreeMap<String, String>,
    stored: &str,
) -> Vec<String> {
    let stored_here = |name: &&String| match storage.get(*name) {
        Some(other) => other == stored,
        None => *name == stored,
    };
    node.names.iter().filter(stored_here).cloned().collect()
}

#[cfg(feature = "tables")]
#[derive(Debug)]
struct Running {
    operator: Categorify,
    counters: Vec<Counter>,
}

#[cfg(feature = "tables")]
impl Accumulator for Running {
    fn update(&mut self, rows: &Rows<'_>) -> Result<(), Error> {
        let encode_type = self.operator.encode_type;
        let groups = grouped(encode_type, rows.columns);
        if self.counters.is_empty() {
            let joint = encode_type == Grouping::Joint;
            let counters = groups.iter();
            let counters = counters.map(|(name, members)| Counter::new(name, members, joint));
            self.counters.extend(counters);
        }
        for (counter, (_, members)) in self.counters.iter_mut().zip(groups) {
            counter.update(members, rows.counts)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &'static str) -> Result<Finished, Error> {
        let Categorify {
            freq_threshold,
            max_size,
            num_buckets,
            ..
        } = self.operator;
        let codes = Codes::new(num_buckets);
        let vocabularies = (self.counters.into_iter())
            .map(|counter| Arc::new(counter.finish(freq_threshold, max_size, codes)))
            .collect();
        Ok(Finished::fitted(Vocabularies { vocabularies }))
    }
}
