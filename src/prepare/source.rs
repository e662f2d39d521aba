//! Reading the source's tables, whatever their format, as columns of texts or numbers: whole, or a chunk at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, AsArray, RecordBatch};
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
                        .map_err(|_| anyhow!("\"{text}\" is not a number"))?,
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
            bail!("{number} is not an integer of 32 bits");
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

/// A table, or some rows of one, as the source has it.
#[derive(Debug)]
pub(super) struct Source {
    path: String,
    /// The place of the first row in its file, from 0.
    first: u64,
    rows: usize,
    columns: BTreeMap<String, Values>,
}

impl Source {
    /// A whole table.
    pub(super) fn read(format: Format, path: &Path) -> Result<Self> {
        present(path)?;
        match format {
            Format::Atomic => AtomicFile::open(path)?.chunk(usize::MAX),
            Format::Parquet => Self::of_batch(path, 0, &table::read(path)?),
        }
    }

    /// Rows of a Parquet file, of which `first` is the place of the first, from 0.
    pub(super) fn of_batch(path: &Path, first: u64, batch: &RecordBatch) -> Result<Self> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, array)| {
            let values = values(array)
                .with_context(|| format!("{}, column {}", path.display(), field.name()))?;
            Ok((field.name().clone(), values))
        });
        Ok(Self {
            path: path.display().to_string(),
            first,
            rows: batch.num_rows(),
            columns: columns.collect::<Result<_>>()?,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// A row's place in its file, from 0.
    pub(super) fn number_of(&self, row: usize) -> u64 {
        self.first + row as u64
    }

    /// Where a row stands, as people count.
    pub(super) fn place(&self, row: usize) -> String {
        format!("row {}", self.number_of(row) + 1)
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

    /// A column of numbers.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        self.each(name, Values::number)
    }

    /// A column of integers of 32 bits.
    pub(super) fn int32s(&self, name: &str) -> Result<Vec<Option<i32>>> {
        self.each(name, Values::int32)
    }

    fn each<T>(&self, name: &str, value: impl Fn(&Values, usize) -> Result<T>) -> Result<Vec<T>> {
        let values = self.column(name)?;
        (0..self.rows)
            .map(|row| {
                value(values, row)
                    .with_context(|| format!("{}, column {name}, {}", self.path, self.place(row)))
            })
            .collect()
    }

    /// A column of ids: integers of 32 bits, as the wire contract has them.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<i32>> {
        self.each(name, |values, row| {
            values
                .int32(row)?
                .filter(|id| *id >= 0)
                .with_context(|| format!("an id must be 0 to {}", i32::MAX))
        })
    }
}

/// Whether there is such a file.
pub(super) fn present(path: &Path) -> Result<()> {
    if !path.exists() {
        bail!("{} is missing; {MISSING}", path.display());
    }
    Ok(())
}

/// Where the examples' data comes from.
pub(super) const MISSING: &str =
    "`scripts/install` brings the data of movielens, `saker generate` makes that of retail";

/// RecBole's atomic files: a header of `name:type`, tab-separated rows.
pub(super) struct AtomicFile {
    path: PathBuf,
    /// Names and types.
    fields: Vec<(String, String)>,
    lines: BufReader<File>,
    /// Rows read so far.
    rows: u64,
    /// Lines read so far.
    line: usize,
}

impl AtomicFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut opened = Self {
            path: path.to_owned(),
            fields: Vec::new(),
            lines: BufReader::new(file),
            rows: 0,
            line: 0,
        };
        let header = opened
            .next_line()?
            .with_context(|| format!("{} is empty", path.display()))?;
        let field = |field: &str| {
            let (name, kind) = field.rsplit_once(':').unwrap_or((field, "token"));
            (name.to_owned(), kind.to_owned())
        };
        opened.fields = header.split('\t').map(field).collect();
        Ok(opened)
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.lines.read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("cannot read {}", self.path.display()))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let text = String::from_utf8_lossy(&bytes);
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    /// The next rows, at most `most`; without rows at the file's end.
    pub(super) fn chunk(&mut self, most: usize) -> Result<Source> {
        let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); self.fields.len()];
        let mut rows = 0;
        while rows < most {
            let Some(line) = self.next_line()? else { break };
            if line.is_empty() {
                continue;
            }
            let mut values = line.split('\t');
            for column in &mut columns {
                let value = values.next().with_context(|| {
                    format!(
                        "{}, line {}: fewer fields than the header",
                        self.path.display(),
                        self.line
                    )
                })?;
                column.push((!value.is_empty()).then(|| value.to_owned()));
            }
            rows += 1;
        }
        let mut source = Source {
            path: self.path.display().to_string(),
            first: self.rows,
            rows,
            columns: BTreeMap::new(),
        };
        for ((name, _), texts) in self.fields.iter().zip(columns) {
            source.columns.insert(name.clone(), Values::Texts(texts));
        }
        for (name, _) in self.fields.iter().filter(|(_, kind)| kind == "float") {
            let numbers = Values::Numbers(source.numbers(name)?);
            source.columns.insert(name.clone(), numbers);
        }
        self.rows += rows as u64;
        Ok(source)
    }
}

/// A column of a Parquet file.
fn values(array: &ArrayRef) -> Result<Values> {
    let unusable = || format!("{} is not usable", array.data_type());
    let to = |target: &DataType| cast(array, target).with_context(unusable);
    Ok(match array.data_type() {
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
    })
}
