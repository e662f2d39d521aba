//! Reads the source's tables in all formats, whole or in chunks. [`crate::values`] converts the values.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::table;
use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, LargeStringArray, LargeStringBuilder, RecordBatch};
use saker_pipeline::{Data, Encoding, Format, Unit};

use crate::files::TableFile;
use crate::values::{Value, Values};

/// A column in the form of its file.
#[derive(Debug)]
enum Raw {
    Array(ArrayRef),
    /// A column of a text file; `true` if the file declares numbers.
    Texts(LargeStringArray, bool),
    /// The same text in every row.
    Constant(Option<String>),
}

/// Rows of one file.
#[derive(Debug)]
struct Part {
    path: String,
    /// The place of the first row in the file, from 0.
    first: u64,
    rows: usize,
    columns: Vec<(String, Raw)>,
}

impl Part {
    fn values(&self, name: &str) -> Result<Values> {
        let column = self.columns.iter().find(|(column, _)| column == name);
        let Some((_, raw)) = column else {
            let names = self.columns.iter().map(|(name, _)| name.as_str());
            return Err(no_column(&self.path, name, names));
        };
        Ok(match raw {
            Raw::Array(array) => {
                Values::of(array).with_context(|| format!("{}, column {name}", self.path))?
            }
            Raw::Texts(texts, numbers) => Values::of_texts(texts.clone(), *numbers),
            Raw::Constant(text) => Values::constant(text.clone(), self.rows),
        })
    }
}

fn no_column<'a>(
    path: &str,
    name: &str,
    given: impl IntoIterator<Item = &'a str>,
) -> anyhow::Error {
    let given: BTreeSet<&str> = given.into_iter().collect();
    let given = Vec::from_iter(given).join(", ");
    anyhow!("{path} has no column {name}; it has {given}")
}

/// A table of the source, or some rows of it.
#[derive(Debug)]
pub struct Source {
    parts: Vec<Part>,
}

impl Source {
    /// Reads these columns of a whole table.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or lacks one of the columns.
    pub fn read(data: &Data, files: &[TableFile], columns: &[&str]) -> Result<Self> {
        let mut parts = Vec::new();
        for file in files {
            match data.format {
                Format::Atomic => {
                    let mut file = AtomicFile::open(&file.path, data.encoding, columns)?;
                    parts.extend(file.chunk(usize::MAX)?.parts);
                }
                Format::Parquet => {
                    let named = columns_of(file, columns)?;
                    let named: Vec<&str> = named.iter().map(String::as_str).collect();
                    let mut first = 0;
                    for batch in table::stream(&file.path, &named)? {
                        let part = Self::of_batch(file, first, &batch?);
                        first += part.rows() as u64;
                        parts.extend(part.parts);
                    }
                }
            }
        }
        Ok(Self { parts })
    }

    /// Rows of a Parquet file; `first` is the place of the first one, from 0.
    pub(crate) fn of_batch(file: &TableFile, first: u64, batch: &RecordBatch) -> Self {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, array)| {
            let array = Raw::Array(ArrayRef::clone(array));
            (field.name().clone(), array)
        });
        // A column of the file takes precedence over the names of the folders.
        let partition = file.partition.iter();
        let partition = partition.map(|(name, value)| (name.clone(), Raw::Constant(value.clone())));
        let part = Part {
            path: file.path.display().to_string(),
            first,
            rows: batch.num_rows(),
            columns: columns.chain(partition).collect(),
        };
        Self { parts: vec![part] }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The part of a row, and the row's place in its file, from 0.
    fn part(&self, row: usize) -> (&str, u64) {
        let mut before = 0;
        for part in &self.parts {
            if row < before + part.rows {
                return (&part.path, part.first + (row - before) as u64);
            }
            before += part.rows;
        }
        ("", row as u64)
    }

    /// The place of a row for messages, counted from 1, with its file if there are several.
    pub fn place(&self, row: usize) -> String {
        let (path, number) = self.part(row);
        match self.parts.iter().all(|part| part.path == path) {
            true => format!("row {}", number + 1),
            false => format!("{path}, row {}", number + 1),
        }
    }

    /// The results of `read` for all values of a column.
    ///
    /// # Errors
    /// Returns an error if the column is missing or `read` fails, with file, column and row.
    pub(crate) fn each<T>(
        &self,
        name: &str,
        mut read: impl FnMut(Value<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::with_capacity(self.rows());
        for part in &self.parts {
            let values = part.values(name)?;
            for (row, value) in (part.first..).zip(values.iter()) {
                let read = read(value)
                    .with_context(|| format!("{}, column {name}, row {}", part.path, row + 1));
                all.push(read?);
            }
        }
        Ok(all)
    }

    /// A column of finite numbers of 32 bits. Texts in `empty` mean no value.
    pub(crate) fn float32s(&self, name: &str, empty: &[String]) -> Result<Vec<Option<f32>>> {
        self.each(name, |value| value.without(empty).float32())
    }

    /// A column of integers of 32 bits. Texts in `empty` mean no value.
    pub(crate) fn int32s(&self, name: &str, empty: &[String]) -> Result<Vec<Option<i32>>> {
        self.each(name, |value| value.without(empty).int32())
    }

    /// A column of texts. Texts in `empty` mean no value, which is returned as the empty text.
    pub fn texts(&self, name: &str, empty: &[String]) -> Result<Vec<String>> {
        let text = |value: Value<'_>| {
            value
                .without(empty)
                .text()
                .map(|text| text.map(Cow::into_owned))
        };
        self.each(name, |value| Ok(text(value)?.unwrap_or_default()))
    }

    /// A column of times, in Unix seconds.
    pub(crate) fn times(&self, name: &str, unit: Unit) -> Result<Vec<Option<i32>>> {
        self.each(name, |value| value.unix_seconds(unit))
    }

    /// A column of ids; some may be missing.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<Option<i32>>> {
        self.each(name, |value| value.id())
    }

    /// A column of ids; a missing one is an error.
    pub fn all_ids(&self, name: &str) -> Result<Vec<i32>> {
        self.each(name, |value| {
            let accepted = || format!("the id is missing; an id must be 0 to {}", i32::MAX);
            value.id()?.with_context(accepted)
        })
    }
}

/// The columns to read from a Parquet file. The others are in the names of its folders.
///
/// # Errors
/// Returns an error if the file is missing or is not a Parquet file, and if it lacks a column or has two of the same name.
pub(crate) fn columns_of(file: &TableFile, columns: &[&str]) -> Result<Vec<String>> {
    let given = table::columns(&file.path)?;
    let path = file.path.display().to_string();
    let mut named = Vec::new();
    for name in columns {
        let of_folder = file.partition.iter().any(|(column, _)| column == name);
        match given.iter().filter(|column| column == name).count() {
            0 if of_folder => {}
            0 => {
                let folders = file.partition.iter().map(|(column, _)| column);
                let given = given.iter().chain(folders).map(String::as_str);
                return Err(no_column(&path, name, given));
            }
            1 => named.push((*name).to_owned()),
            several => bail!("{path} has {several} columns called {name}; one is accepted"),
        }
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// RecBole's atomic files: a header of `name:type`, tab-separated rows.
pub(crate) struct AtomicFile {
    path: PathBuf,
    encoding: Encoding,
    /// The columns to read.
    fields: Vec<Field>,
    /// Fields of a row.
    width: usize,
    lines: BufReader<File>,
    /// Rows read so far.
    rows: u64,
    /// Lines read so far.
    line: usize,
}

/// A column of an atomic file.
struct Field {
    name: String,
    /// The place in a row.
    place: usize,
    /// Whether the header declares numbers.
    numbers: bool,
}

impl AtomicFile {
    /// Opens a file to read these columns.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or lacks one of the columns.
    pub(crate) fn open(path: &Path, encoding: Option<Encoding>, columns: &[&str]) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut opened = Self {
            path: path.to_owned(),
            encoding: encoding.unwrap_or_default(),
            fields: Vec::new(),
            width: 0,
            lines: BufReader::new(file),
            rows: 0,
            line: 0,
        };
        let mut bytes = Vec::new();
        let header = opened.next_line(&mut bytes)?;
        let header = header
            .with_context(|| format!("{} is empty", path.display()))?
            .into_owned();
        let fields = header.split('\t').enumerate().map(|(place, field)| {
            let (name, kind) = field.rsplit_once(':').unwrap_or((field, "token"));
            Field {
                name: name.to_owned(),
                place,
                numbers: kind == "float",
            }
        });
        let mut fields: Vec<Field> = fields.collect();
        opened.width = fields.len();
        let path = path.display().to_string();
        for name in columns {
            match fields.iter().filter(|field| field.name == **name).count() {
                0 => {
                    let given = fields.iter().map(|field| field.name.as_str());
                    return Err(no_column(&path, name, given));
                }
                1 => {}
                several => bail!("{path} has {several} columns called {name}; one is accepted"),
            }
        }
        fields.retain(|field| columns.contains(&field.name.as_str()));
        opened.fields = fields;
        Ok(opened)
    }

    /// The next line without its end; `bytes` is overwritten.
    fn next_line<'b>(&mut self, bytes: &'b mut Vec<u8>) -> Result<Option<Cow<'b, str>>> {
        bytes.clear();
        let read = self.lines.read_until(b'\n', bytes);
        if read.with_context(|| format!("cannot read {}", self.path.display()))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let mut line: &[u8] = bytes;
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut skipped = 0;
        if self.line == 1 && self.encoding == Encoding::Utf8 {
            /// The byte order mark that some editors write before a text in UTF-8.
            const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
            let without = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
            skipped = line.len() - without.len();
            line = without;
        }
        let refused = |byte: usize, accepted: &str| {
            anyhow!(
                "{}, line {}, byte {}: 0x{:02X} is not {accepted}",
                self.path.display(),
                self.line,
                skipped + byte + 1,
                line[byte]
            )
        };
        match self.encoding {
            Encoding::Utf8 => match std::str::from_utf8(line) {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(error) => Err(refused(
                    error.valid_up_to(),
                    "UTF-8; data.encoding = \"latin1\" reads ISO 8859-1",
                )),
            },
            Encoding::Latin1 => {
                // ISO 8859-1 has no letters for these bytes, so the file has another encoding.
                match line.iter().position(|byte| (0x80..0xA0).contains(byte)) {
                    Some(byte) => Err(refused(byte, "a letter of latin1, ISO 8859-1")),
                    None => Ok(Some(line.iter().map(|&byte| char::from(byte)).collect())),
                }
            }
        }
    }

    /// The next rows, at most `most`; no rows at the file's end.
    pub(crate) fn chunk(&mut self, most: usize) -> Result<Source> {
        let mut columns: Vec<LargeStringBuilder> = Vec::new();
        columns.resize_with(self.fields.len(), LargeStringBuilder::new);
        let mut rows = 0;
        let mut bytes = Vec::new();
        while rows < most {
            let Some(line) = self.next_line(&mut bytes)? else {
                break;
            };
            if line.is_empty() {
                continue;
            }
            let mut columns = self.fields.iter().zip(&mut columns).peekable();
            let mut width = 0;
            for (place, value) in line.split('\t').enumerate() {
                width += 1;
                if let Some((_, column)) = columns.next_if(|(field, _)| field.place == place) {
                    column.append_option((!value.is_empty()).then_some(value));
                }
            }
            if width != self.width {
                let than = if width < self.width { "fewer" } else { "more" };
                bail!(
                    "{}, line {}: {width} fields, {than} than the {} of the header",
                    self.path.display(),
                    self.line,
                    self.width
                );
            }
            rows += 1;
        }
        let fields = self.fields.iter().zip(&mut columns);
        let part = Part {
            path: self.path.display().to_string(),
            first: self.rows,
            rows,
            columns: fields
                .map(|(field, texts)| {
                    let texts = Raw::Texts(texts.finish(), field.numbers);
                    (field.name.clone(), texts)
                })
                .collect(),
        };
        self.rows += rows as u64;
        Ok(Source { parts: vec![part] })
    }
}
