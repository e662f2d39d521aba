//! Reading the source's tables, whatever their format, as columns of texts or numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use saker_pipeline::Format;

use crate::table;

/// A column as the source has it; `None` is an empty value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Integers(Vec<Option<i64>>),
    Numbers(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
}

impl Values {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// The value as a number; a text must read as one.
    pub(super) fn number(&self, row: usize) -> Result<Option<f64>> {
        Ok(match self {
            Self::Integers(values) => values[row].map(|value| value as f64),
            Self::Numbers(values) => values[row].filter(|value| !value.is_nan()),
            Self::Texts(values) => match values[row].as_deref().map(str::trim) {
                None | Some("") => None,
                Some(text) => Some(
                    text.parse()
                        .map_err(|_| anyhow!("row {}: \"{text}\" is not a number", row + 1))?,
                ),
            },
        })
    }

    /// The value as an integer of 32 bits.
    pub(super) fn int32(&self, row: usize) -> Result<Option<i32>> {
        let Some(number) = self.number(row)? else {
            return Ok(None);
        };
        let truncated = number.trunc();
        if truncated < f64::from(i32::MIN) || truncated > f64::from(i32::MAX) {
            bail!("row {}: {number} is not an integer of 32 bits", row + 1);
        }
        Ok(Some(truncated as i32))
    }

    /// The value as text; no value is the empty text.
    pub(super) fn text(&self, row: usize) -> String {
        match self {
            Self::Integers(values) => values[row]
                .map(|value| value.to_string())
                .unwrap_or_default(),
            Self::Numbers(values) => values[row]
                .map(|value| value.to_string())
                .unwrap_or_default(),
            Self::Texts(values) => values[row].clone().unwrap_or_default(),
        }
    }
}

/// A table as the source has it.
#[derive(Debug)]
pub(super) struct Source {
    path: String,
    rows: usize,
    columns: BTreeMap<String, Values>,
}

impl Source {
    pub(super) fn read(format: Format, path: &Path) -> Result<Self> {
        if !path.exists() {
            bail!(
                "{} is missing; for the examples' data run `scripts/install`",
                path.display()
            );
        }
        let columns = match format {
            Format::Atomic => atomic(path)?,
            Format::Parquet => parquet(path)?,
        };
        let rows = columns.values().next().map_or(0, Values::len);
        Ok(Self {
            path: path.display().to_string(),
            rows,
            columns,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn column(&self, name: &str) -> Result<&Values> {
        self.columns.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.keys().map(String::as_str).collect();
            anyhow!(
                "{} has no column {name}; it has {}",
                self.path,
                names.join(", ")
            )
        })
    }

    /// A column of ids: integers of 32 bits, as the wire contract has them.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<i32>> {
        let values = self.column(name)?;
        (0..self.rows)
            .map(|row| {
                let id = values
                    .int32(row)
                    .with_context(|| format!("{}, column {name}", self.path))?;
                id.filter(|id| *id >= 0).with_context(|| {
                    format!(
                        "{}, column {name}, row {}: an id must be 0 to {}",
                        self.path,
                        row + 1,
                        i32::MAX
                    )
                })
            })
            .collect()
    }
}

/// RecBole's atomic files: a header of `name:type`, tab-separated rows.
fn atomic(path: &Path) -> Result<BTreeMap<String, Values>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let content = String::from_utf8_lossy(&bytes);
    let mut lines = content.lines();
    let header = lines
        .next()
        .with_context(|| format!("{} is empty", path.display()))?;
    let fields: Vec<(&str, &str)> = header
        .split('\t')
        .map(|field| field.rsplit_once(':').unwrap_or((field, "token")))
        .collect();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); fields.len()];
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let mut values = line.split('\t');
        for column in &mut columns {
            let value = values.next().with_context(|| {
                format!(
                    "{}, line {}: fewer fields than the header",
                    path.display(),
                    number + 2
                )
            })?;
            column.push((!value.is_empty()).then(|| value.to_owned()));
        }
    }
    let typed = fields
        .into_iter()
        .zip(columns)
        .map(|((name, kind), texts)| {
            let values = Values::Texts(texts);
            let values = match kind {
                "float" => {
                    let numbers = (0..values.len())
                        .map(|row| values.number(row))
                        .collect::<Result<_>>();
                    Values::Numbers(
                        numbers.with_context(|| format!("{}, column {name}", path.display()))?,
                    )
                }
                _ => values,
            };
            Ok((name.to_owned(), values))
        });
    typed.collect()
}

fn parquet(path: &Path) -> Result<BTreeMap<String, Values>> {
    let batch = table::read(path)?;
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            let unusable = || {
                format!(
                    "{}, column {}: {} is not usable",
                    path.display(),
                    field.name(),
                    field.data_type()
                )
            };
            let to = |target: &DataType| cast(array, target).with_context(unusable);
            let values = match field.data_type() {
                kind if kind.is_integer() || *kind == DataType::Boolean => Values::Integers(
                    to(&DataType::Int64)?
                        .as_primitive::<Int64Type>()
                        .iter()
                        .collect(),
                ),
                kind if kind.is_floating() => Values::Numbers(
                    to(&DataType::Float64)?
                        .as_primitive::<Float64Type>()
                        .iter()
                        .collect(),
                ),
                DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                    let seconds = to(&DataType::Timestamp(
                        arrow::datatypes::TimeUnit::Second,
                        None,
                    ))?;
                    let seconds = cast(&seconds, &DataType::Int64).with_context(unusable)?;
                    Values::Integers(seconds.as_primitive::<Int64Type>().iter().collect())
                }
                // Lists of words are read as words with spaces between, as in atomic files.
                DataType::List(_) => {
                    let lists = array.as_list::<i32>();
                    let words = lists.iter().map(|list| {
                        let Some(list) = list else { return Ok(None) };
                        let words = cast(&list, &DataType::Utf8).with_context(unusable)?;
                        let words: Vec<&str> = words.as_string::<i32>().iter().flatten().collect();
                        Ok(Some(words.join(" ")))
                    });
                    Values::Texts(words.collect::<Result<_>>()?)
                }
                _ => {
                    let texts = to(&DataType::Utf8)?;
                    Values::Texts(
                        texts
                            .as_string::<i32>()
                            .iter()
                            .map(|text| text.map(str::to_owned))
                            .collect(),
                    )
                }
            };
            Ok((field.name().clone(), values))
        });
    columns.collect()
}
