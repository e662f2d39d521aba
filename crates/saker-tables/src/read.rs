//! From Parquet to columns.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit as ParquetUnit, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::{Column, Error, Table, TimeUnit, Values};

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not Parquet, or holds an integer of more than 63 bits or a text that is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::of(File::open(path)?)
    }

    /// Reads a file that lies in memory.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn read_bytes(file: Bytes) -> Result<Self, Error> {
        Self::of(file)
    }

    /// Adds the rows of a table with the same columns.
    ///
    /// # Errors
    /// Returns [`Error::Columns`] if a column has another name or type.
    pub fn append(&mut self, other: Self) -> Result<(), Error> {
        let described = |table: &Self| {
            let columns = table.columns.iter();
            let columns =
                columns.map(|column| format!("{} ({})", column.name, column.values.kind()));
            columns.collect::<Vec<_>>().join(", ")
        };
        let (found, expected) = (described(&other), described(self));
        if found != expected {
            return Err(Error::Columns { found, expected });
        }
        for (column, more) in self.columns.iter_mut().zip(other.columns) {
            match (&mut column.values, more.values) {
                (Values::Bools(all), Values::Bools(more)) => all.extend(more),
                (Values::Integers(all), Values::Integers(more)) => all.extend(more),
                (Values::Floats { values: all, .. }, Values::Floats { values: more, .. }) => {
                    all.extend(more);
                }
                (Values::Texts(all), Values::Texts(more)) => all.extend(more),
                (Values::Times { values: all, .. }, Values::Times { values: more, .. }) => {
                    all.extend(more);
                }
                (Values::Unsupported(_), Values::Unsupported(_)) => {}
                // Their kinds would have differed.
                _ => return Err(Error::Columns { found, expected }),
            }
        }
        self.rows += other.rows;
        Ok(())
    }

    fn of(file: impl ChunkReader + 'static) -> Result<Self, Error> {
        let file = ParquetFile::of(file)?;
        let names = file.names().into_iter().enumerate();
        let columns = names.map(|(place, name)| -> Result<Column, Error> {
            let values = file.column(place)?;
            Ok(Column { name, values })
        });
        Ok(Self {
            columns: columns.collect::<Result<_, Error>>()?,
            rows: file.rows(),
        })
    }
}

/// An open Parquet file, of which columns are read one at a time.
pub struct ParquetFile {
    reader: Box<dyn FileReader>,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile")
            .field("rows", &self.rows())
            .finish()
    }
}

impl ParquetFile {
    /// Opens a file.
    ///
    /// # Errors
    /// Returns an error if the file is missing or is not Parquet.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(File::open(path)?)
    }

    fn of(file: impl ChunkReader + 'static) -> Result<Self, Error> {
        let reader = Box::new(SerializedFileReader::new(file)?);
        Ok(Self { reader })
    }

    fn schema(&self) -> &SchemaDescriptor {
        self.reader.metadata().file_metadata().schema_descr()
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        let rows = self.reader.metadata().file_metadata().num_rows();
        usize::try_from(rows).unwrap_or_default()
    }

    /// The names of the columns.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let fields = self.schema().root_schema().get_fields().iter();
        fields.map(|field| field.name().to_owned()).collect()
    }

    /// The values of the column at this place in [`ParquetFile::names`].
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn column(&self, place: usize) -> Result<Values, Error> {
        let schema = self.schema();
        let leaves =
            (0..schema.num_columns()).filter(|&leaf| schema.get_column_root_idx(leaf) == place);
        match leaves.collect::<Vec<_>>().as_slice() {
            // A leaf that is not its own root is a part of a nested column.
            &[leaf] if schema.get_column_root(leaf).is_primitive() => {
                read_column(self.reader.as_ref(), leaf, &schema.column(leaf))
            }
            _ => Ok(Values::Unsupported("a nested type".to_owned())),
        }
    }
}

/// How the physical values of a column are to be read.
enum Reading {
    Bools,
    Signed,
    /// Stored as the signed integers of the same bits.
    Unsigned,
    Floats,
    Texts,
    Times(TimeUnit, bool),
}

/// What a column's types say, or the name of a type that is not read.
fn reading(column: &ColumnDescriptor) -> Result<Reading, String> {
    let (physical, converted) = (column.physical_type(), column.converted_type());
    let logical = column.logical_type_ref();
    if column.max_rep_level() > 0 {
        return Err("a nested type".to_owned());
    }
    Ok(match (physical, logical, converted) {
        (PhysicalType::BOOLEAN, None, _) => Reading::Bools,
        (PhysicalType::FLOAT | PhysicalType::DOUBLE, None, _) => Reading::Floats,
        (PhysicalType::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum), _)
        | (PhysicalType::BYTE_ARRAY, None, ConvertedType::UTF8 | ConvertedType::ENUM) => {
            Reading::Texts
        }
        (PhysicalType::INT32 | PhysicalType::INT64, Some(LogicalType::Integer(kind)), _) => {
            if kind.is_signed {
                Reading::Signed
            } else {
                Reading::Unsigned
            }
        }
        (PhysicalType::INT64, Some(LogicalType::Timestamp(time)), _) => {
            let unit = match time.unit {
                ParquetUnit::MILLIS => TimeUnit::Milliseconds,
                ParquetUnit::MICROS => TimeUnit::Microseconds,
                ParquetUnit::NANOS => TimeUnit::Nanoseconds,
            };
            Reading::Times(unit, time.is_adjusted_to_u_t_c)
        }
        (PhysicalType::INT64, None, ConvertedType::TIMESTAMP_MILLIS) => {
            Reading::Times(TimeUnit::Milliseconds, true)
        }
        (PhysicalType::INT64, None, ConvertedType::TIMESTAMP_MICROS) => {
            Reading::Times(TimeUnit::Microseconds, true)
        }
        (
            PhysicalType::INT32 | PhysicalType::INT64,
            None,
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64,
        ) => Reading::Unsigned,
        (
            PhysicalType::INT32 | PhysicalType::INT64,
            None,
            ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64,
        ) => Reading::Signed,
        (_, Some(logical), _) => {
            return Err(format!("{physical} with the logical type {logical:?}"));
        }
        (_, None, ConvertedType::NONE) => return Err(physical.to_string()),
        (_, None, converted) => return Err(format!("{physical} with the type {converted}")),
    })
}

fn read_column(
    reader: &dyn FileReader,
    leaf: usize,
    column: &ColumnDescriptor,
) -> Result<Values, Error> {
    let reading = match reading(column) {
        Ok(reading) => reading,
        Err(kind) => return Ok(Values::Unsupported(kind)),
    };
    let single = column.physical_type() == PhysicalType::FLOAT;
    let mut values = match reading {
        Reading::Bools => Values::Bools(Vec::new()),
        Reading::Signed | Reading::Unsigned => Values::Integers(Vec::new()),
        Reading::Floats => Values::Floats {
            values: Vec::new(),
            single,
        },
        Reading::Texts => Values::Texts(Vec::new()),
        Reading::Times(unit, utc) => Values::Times {
            values: Vec::new(),
            unit,
            utc,
        },
    };
    let unsigned = matches!(reading, Reading::Unsigned);
    for group in 0..reader.num_row_groups() {
        let pages = reader.get_row_group(group)?.get_column_reader(leaf)?;
        match (&mut values, pages) {
            (Values::Bools(all), ColumnReader::BoolColumnReader(pages)) => {
                all.extend(read_all(pages)?)
            }
            (Values::Integers(all), ColumnReader::Int32ColumnReader(pages)) => {
                let wide = |value: i32| {
                    if unsigned {
                        i64::from(value.cast_unsigned())
                    } else {
                        i64::from(value)
                    }
                };
                all.extend(read_all(pages)?.into_iter().map(|value| value.map(wide)));
            }
            (Values::Integers(all), ColumnReader::Int64ColumnReader(pages)) => {
                let read = read_all(pages)?;
                // Greater unsigned numbers have the sign's bit.
                let mut rows = read.iter().enumerate();
                let too_great = rows.find_map(|(row, value)| {
                    let value = value.filter(|&value| unsigned && value < 0)?;
                    Some((row, value))
                });
                if let Some((row, value)) = too_great {
                    return Err(Error::Value {
                        column: column.name().to_owned(),
                        row: all.len() + row + 1,
                        value: value.cast_unsigned().to_string(),
                        accepted: format!("up to {}", i64::MAX),
                    });
                }
                all.extend(read);
            }
            (Values::Times { values: all, .. }, ColumnReader::Int64ColumnReader(pages)) => {
                all.extend(read_all(pages)?)
            }
            (Values::Floats { values: all, .. }, ColumnReader::FloatColumnReader(pages)) => {
                all.extend(
                    read_all(pages)?
                        .into_iter()
                        .map(|value| value.map(f64::from)),
                );
            }
            (Values::Floats { values: all, .. }, ColumnReader::DoubleColumnReader(pages)) => {
                all.extend(read_all(pages)?)
            }
            (Values::Texts(all), ColumnReader::ByteArrayColumnReader(pages)) => {
                for text in read_all(pages)? {
                    let text = text.map(|text: ByteArray| text.as_utf8().map(str::to_owned));
                    all.push(text.transpose()?);
                }
            }
            _ => return Ok(Values::Unsupported(column.physical_type().to_string())),
        }
    }
    Ok(values)
}

/// The values of a column in one row group.
fn read_all<T: DataType>(mut reader: ColumnReaderImpl<T>) -> Result<Vec<Option<T::T>>, Error> {
    const ROWS: usize = 1 << 16;
    let mut all = Vec::new();
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (rows, found, _) = reader.read_records(ROWS, Some(&mut levels), None, &mut values)?;
        if rows == 0 {
            return Ok(all);
        }
        if found == rows {
            all.extend(values.drain(..).map(Some));
        } else {
            // A column that is not nested has the level 0 for null and 1 for a value.
            let mut values = values.drain(..);
            all.extend(
                levels
                    .iter()
                    .map(|&level| if level == 0 { None } else { values.next() }),
            );
        }
    }
}
