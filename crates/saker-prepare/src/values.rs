//! Values of source tables. Only this module converts a table's value to an integer, a number, a text, a list or a time.
//!
//! [`Values::of`] accepts an Arrow array of any type with such values. [`Value`] has the rules, which are the same for every file format:
//!
//! - A null, an empty text and NaN, as a number or as a text where a number is wanted, are missing.
//! - An integer is parsed as one: `7`, `-7`, `7.0`. A fraction, an exponent and what exceeds the range are errors.
//! - A number is finite. Infinity, and what overflows f32, are errors.
//! - A text is valid UTF-8. A number reads as the shortest text that gives the number back.
//! - A list's elements stay apart, whatever they contain. A text, where a list is wanted, is its words.
//! - A time is a timestamp, a date, an ISO 8601 text, or a number of the unit that the definition names. It is rounded down to a second.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, LargeBinaryArray,
    LargeStringArray, OffsetSizeTrait, PrimitiveArray, RunArray, StringArray, StringViewArray,
    UInt32Array, UInt64Array,
};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::take;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, DecimalType, Float16Type, Int8Type, Int16Type, Int32Type,
    Int64Type, RunEndIndexType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
};
use chrono::Utc;
use saker_pipeline::Unit;

/// The accepted types.
const READ: &str = "integers, floats, decimals, booleans, texts, timestamps, dates, and lists and dictionaries of them";

/// The values of a column.
#[derive(Debug, Clone)]
pub struct Values(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// This many rows without a value.
    Missing(usize),
    Integers(Int64Array),
    Unsigned(UInt64Array),
    Singles(Float32Array),
    Floats(Float64Array),
    /// Units since 1970, UTC.
    Times(TimeUnit, Int64Array),
    Texts(StringArray),
    LargeTexts(LargeStringArray),
    TextViews(StringViewArray),
    /// Bytes without a declared type, as some writers store texts.
    Bytes(LargeBinaryArray),
    /// Texts of a column whose file declares it as numbers.
    Numerals(LargeStringArray),
    /// The same text in this many rows.
    Constant(String, usize),
    Lists(Box<Values>, Vec<Option<Range<usize>>>),
}

impl Values {
    /// The values of an Arrow array.
    ///
    /// # Errors
    /// Returns an error if the type holds no integers, numbers, texts, times or lists of them.
    pub fn of(array: &ArrayRef) -> Result<Self> {
        let array = array.as_ref();
        let refused = || {
            anyhow!(
                "the type {} is not read; accepted are {READ}",
                array.data_type()
            )
        };
        Ok(Self(match array.data_type() {
            DataType::Null => Kind::Missing(array.len()),
            DataType::Boolean => {
                let values = array.as_boolean().iter();
                Kind::Integers(values.map(|value| value.map(i64::from)).collect())
            }
            DataType::Int8 => integers::<Int8Type>(array),
            DataType::Int16 => integers::<Int16Type>(array),
            DataType::Int32 => integers::<Int32Type>(array),
            DataType::Int64 => Kind::Integers(array.as_primitive().clone()),
            DataType::UInt8 => integers::<UInt8Type>(array),
            DataType::UInt16 => integers::<UInt16Type>(array),
            DataType::UInt32 => integers::<UInt32Type>(array),
            DataType::UInt64 => Kind::Unsigned(array.as_primitive().clone()),
            DataType::Float16 => {
                let halves = array.as_primitive::<Float16Type>();
                Kind::Singles(halves.unary(|half| half.to_f32()))
            }
            DataType::Float32 => Kind::Singles(array.as_primitive().clone()),
            DataType::Float64 => Kind::Floats(array.as_primitive().clone()),
            DataType::Decimal32(..) => decimals::<Decimal32Type>(array),
            DataType::Decimal64(..) => decimals::<Decimal64Type>(array),
            DataType::Decimal128(..) => decimals::<Decimal128Type>(array),
            DataType::Decimal256(..) => decimals::<Decimal256Type>(array),
            DataType::Timestamp(unit, _) => Kind::Times(
                *unit,
                match unit {
                    TimeUnit::Second => times::<TimestampSecondType>(array),
                    TimeUnit::Millisecond => times::<TimestampMillisecondType>(array),
                    TimeUnit::Microsecond => times::<TimestampMicrosecondType>(array),
                    TimeUnit::Nanosecond => times::<TimestampNanosecondType>(array),
                },
            ),
            DataType::Date32 => {
                let days = array.as_primitive::<Date32Type>();
                Kind::Times(
                    TimeUnit::Second,
                    days.unary(|day| i64::from(day) * 24 * 60 * 60),
                )
            }
            DataType::Date64 => Kind::Times(TimeUnit::Millisecond, times::<Date64Type>(array)),
            DataType::Utf8 => Kind::Texts(array.as_string().clone()),
            DataType::LargeUtf8 => Kind::LargeTexts(array.as_string().clone()),
            DataType::Utf8View => Kind::TextViews(array.as_string_view().clone()),
            DataType::Binary => Kind::Bytes(array.as_binary::<i32>().iter().collect()),
            DataType::LargeBinary => Kind::Bytes(array.as_binary().clone()),
            DataType::BinaryView => Kind::Bytes(array.as_binary_view().iter().collect()),
            DataType::FixedSizeBinary(_) => {
                Kind::Bytes(array.as_fixed_size_binary().iter().collect())
            }
            DataType::List(_) => lists::<i32>(array)?,
            DataType::LargeList(_) => lists::<i64>(array)?,
            DataType::ListView(_) => list_views::<i32>(array)?,
            DataType::LargeListView(_) => list_views::<i64>(array)?,
            DataType::FixedSizeList(_, width) => {
                let width = usize::try_from(*width).map_err(|_| refused())?;
                let elements = elements(array.as_fixed_size_list().values())?;
                ranges(array, elements, |row| row * width..(row + 1) * width)
            }
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                return Self::of(&take(dictionary.values(), dictionary.keys(), None)?);
            }
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => return runs::<Int16Type>(array.as_run()),
                DataType::Int32 => return runs::<Int32Type>(array.as_run()),
                _ => return runs::<Int64Type>(array.as_run()),
            },
            _ => return Err(refused()),
        }))
    }

    /// A column of a text file; `numbers` if the file declares it as numbers.
    pub fn of_texts(texts: LargeStringArray, numbers: bool) -> Self {
        Self(match numbers {
            true => Kind::Numerals(texts),
            false => Kind::LargeTexts(texts),
        })
    }

    /// The same text, or no value, in every row.
    pub fn constant(text: Option<String>, rows: usize) -> Self {
        Self(match text {
            Some(text) => Kind::Constant(text, rows),
            None => Kind::Missing(rows),
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Missing(rows) | Kind::Constant(_, rows) => *rows,
            Kind::Integers(array) | Kind::Times(_, array) => array.len(),
            Kind::Unsigned(array) => array.len(),
            Kind::Singles(array) => array.len(),
            Kind::Floats(array) => array.len(),
            Kind::Texts(array) => array.len(),
            Kind::LargeTexts(array) | Kind::Numerals(array) => array.len(),
            Kind::TextViews(array) => array.len(),
            Kind::Bytes(array) => array.len(),
            Kind::Lists(_, ranges) => ranges.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row, which must be less than [`len`](Self::len).
    pub fn value(&self, row: usize) -> Value<'_> {
        fn some<'a, T>(value: Option<T>, of: impl Fn(T) -> Value<'a>) -> Value<'a> {
            value.map_or(Value::Missing, of)
        }
        fn of<A: arrow::array::ArrayAccessor>(array: A, row: usize) -> Option<A::Item> {
            array.is_valid(row).then(|| array.value(row))
        }
        match &self.0 {
            Kind::Missing(_) => Value::Missing,
            Kind::Constant(text, _) => Value::Text(text),
            Kind::Integers(array) => some(of(array, row), |value| Value::Integer(value.into())),
            Kind::Unsigned(array) => some(of(array, row), |value| Value::Integer(value.into())),
            Kind::Singles(array) => some(of(array, row), Value::Single),
            Kind::Floats(array) => some(of(array, row), Value::Float),
            Kind::Times(unit, array) => some(of(array, row), |value| Value::Time(*unit, value)),
            Kind::Texts(array) => some(of(array, row), Value::Text),
            Kind::LargeTexts(array) => some(of(array, row), Value::Text),
            Kind::TextViews(array) => some(of(array, row), Value::Text),
            Kind::Bytes(array) => some(of(array, row), |bytes| match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text),
                Err(_) => Value::Bytes(bytes),
            }),
            Kind::Numerals(array) => {
                some(of(array, row), |text| match text.trim().parse::<f64>() {
                    Ok(number) if !number.is_infinite() => Value::Float(number),
                    _ => Value::Text(text),
                })
            }
            Kind::Lists(elements, ranges) => some(ranges.get(row).cloned().flatten(), |range| {
                Value::List(List {
                    elements,
                    range,
                    empty: &[],
                })
            }),
        }
    }

    /// The values of all rows.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        (0..self.len()).map(|row| self.value(row))
    }
}

fn integers<T: ArrowPrimitiveType>(array: &dyn Array) -> Kind
where
    i64: From<T::Native>,
{
    Kind::Integers(array.as_primitive::<T>().unary(i64::from))
}

fn times<T: ArrowPrimitiveType<Native = i64>>(array: &dyn Array) -> Int64Array {
    let times: &PrimitiveArray<T> = array.as_primitive();
    times.reinterpret_cast::<Int64Type>()
}

/// Decimals as the texts of their digits, which are exact.
fn decimals<T: DecimalType>(array: &dyn Array) -> Kind {
    let decimals = array.as_primitive::<T>();
    let texts = (0..decimals.len()).map(|row| {
        let valid = decimals.is_valid(row);
        valid.then(|| decimals.value_as_string(row))
    });
    Kind::LargeTexts(texts.collect())
}

fn elements(values: &ArrayRef) -> Result<Values> {
    let elements = Values::of(values).context("elements of a list")?;
    if let Kind::Lists(..) = elements.0 {
        bail!("a list of lists is not read; accepted are {READ}");
    }
    Ok(elements)
}

fn ranges(array: &dyn Array, elements: Values, range: impl Fn(usize) -> Range<usize>) -> Kind {
    let ranges = (0..array.len()).map(|row| array.is_valid(row).then(|| range(row)));
    Kind::Lists(Box::new(elements), ranges.collect())
}

fn lists<O: OffsetSizeTrait>(array: &dyn Array) -> Result<Kind> {
    let list = array.as_list::<O>();
    let offsets = list.value_offsets();
    let range = |row: usize| offsets[row].as_usize()..offsets[row + 1].as_usize();
    Ok(ranges(array, elements(list.values())?, range))
}

fn list_views<O: OffsetSizeTrait>(array: &dyn Array) -> Result<Kind> {
    let list = array.as_list_view::<O>();
    let (offsets, sizes) = (list.value_offsets(), list.value_sizes());
    let range = |row: usize| {
        let from = offsets[row].as_usize();
        from..from + sizes[row].as_usize()
    };
    Ok(ranges(array, elements(list.values())?, range))
}

fn runs<T: RunEndIndexType>(array: &RunArray<T>) -> Result<Values> {
    let places = (0..array.len()).map(|row| array.get_physical_index(row) as u32);
    let places = UInt32Array::from_iter_values(places);
    Values::of(&take(array.values(), &places, None)?)
}

/// One value of a source table.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// No value.
    Missing,
    /// An integer, or a boolean as 0 or 1.
    Integer(i128),
    /// A number of 32 bits.
    Single(f32),
    /// A number of 64 bits.
    Float(f64),
    /// Units since 1970, UTC.
    Time(TimeUnit, i64),
    /// A text.
    Text(&'a str),
    /// Bytes that are not UTF-8.
    Bytes(&'a [u8]),
    /// A list.
    List(List<'a>),
}

/// A list of values that are not lists.
#[derive(Debug, Clone)]
pub struct List<'a> {
    elements: &'a Values,
    range: Range<usize>,
    /// Texts that mean "no value".
    empty: &'a [String],
}

impl<'a> List<'a> {
    /// The texts of the elements that have one, trimmed.
    fn words(&self) -> Result<Vec<Cow<'a, str>>> {
        let mut words = Vec::new();
        for row in self.range.clone() {
            let element = self.elements.value(row).without(self.empty);
            let text = element
                .text()
                .with_context(|| format!("element {}", row - self.range.start + 1))?;
            match text {
                Some(Cow::Borrowed(text)) => words.push(Cow::Borrowed(text.trim())),
                Some(owned) => words.push(owned),
                None => {}
            }
        }
        words.retain(|word| !word.is_empty());
        Ok(words)
    }
}

/// Seconds of a time, rounded down.
fn seconds(unit: TimeUnit, time: i64) -> i64 {
    time.div_euclid(match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    })
}

/// Whether a text means a missing number.
fn is_missing_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    text.is_empty() || digits.eq_ignore_ascii_case("nan")
}

/// Parses digits with an optional fraction of zeros.
fn whole(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let plain = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && fraction.bytes().all(|byte| byte == b'0');
    plain.then(|| whole.parse().ok()).flatten()
}

/// Converts a float without a fraction, within the range in which f64 represents all integers.
fn whole_number(number: f64) -> Option<i128> {
    /// 2^53
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i128)
}

impl<'a> Value<'a> {
    /// The same value, or no value if its text is in `empty`. For a list, applies to the elements.
    pub fn without(self, empty: &'a [String]) -> Self {
        if empty.is_empty() {
            return self;
        }
        match self {
            Self::List(list) => Self::List(List { empty, ..list }),
            Self::Text(text) if empty.iter().any(|it| it == text || it == text.trim()) => {
                Self::Missing
            }
            Self::Missing | Self::Text(_) | Self::Bytes(_) => self,
            number => {
                let written = number.written();
                match empty.contains(&written) {
                    true => Self::Missing,
                    false => number,
                }
            }
        }
    }

    /// The value as an error shows it.
    fn written(&self) -> String {
        match self {
            Self::Missing => "no value".to_owned(),
            Self::Integer(number) => number.to_string(),
            // Adding zero turns -0 into 0, so zero has one text.
            Self::Single(number) => (number + 0.0).to_string(),
            Self::Float(number) => (number + 0.0).to_string(),
            Self::Time(unit, time) => seconds(*unit, *time).to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Bytes(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            Self::List(list) => format!("a list of {} elements", list.range.len()),
        }
    }

    /// The value as an integer of any size.
    fn integer(&self) -> Result<Option<i128>> {
        let number = match self {
            Self::Missing => return Ok(None),
            Self::Integer(number) => Some(*number),
            Self::Single(number) if number.is_nan() => return Ok(None),
            Self::Single(number) => whole_number(f64::from(*number)),
            Self::Float(number) if number.is_nan() => return Ok(None),
            Self::Float(number) => whole_number(*number),
            Self::Time(unit, time) => Some(seconds(*unit, *time).into()),
            Self::Text(text) if is_missing_number(text.trim()) => return Ok(None),
            Self::Text(text) => whole(text.trim()),
            Self::Bytes(_) | Self::List(_) => None,
        };
        let number = number.with_context(|| {
            let (least, most) = (i32::MIN, i32::MAX);
            format!(
                "{} is not an integer; accepted are {least} to {most} in digits, without fraction and exponent",
                self.written()
            )
        })?;
        Ok(Some(number))
    }

    /// The value as an integer of 32 bits. A time is converted to Unix seconds.
    ///
    /// # Errors
    /// Returns an error if the value has a fraction, is not a number, or exceeds the range.
    pub fn int32(&self) -> Result<Option<i32>> {
        let Some(number) = self.integer()? else {
            return Ok(None);
        };
        let number = i32::try_from(number).map_err(|_| {
            let (least, most) = (i32::MIN, i32::MAX);
            anyhow!(
                "{} is not an integer of 32 bits; accepted are {least} to {most}",
                self.written()
            )
        })?;
        Ok(Some(number))
    }

    /// The value as an id of the wire contract: 0 to 2147483647.
    ///
    /// # Errors
    /// Returns an error as [`int32`](Self::int32) does, or if the value is negative.
    pub fn id(&self) -> Result<Option<i32>> {
        let accepted = || format!("an id must be 0 to {}", i32::MAX);
        match self.int32().with_context(accepted)? {
            Some(id) if id < 0 => Err(anyhow!("{id} is negative").context(accepted())),
            id => Ok(id),
        }
    }

    /// The value as a finite number. A time is converted to Unix seconds.
    ///
    /// # Errors
    /// Returns an error if the value is infinite or not a number.
    pub fn number(&self) -> Result<Option<f64>> {
        let number = match self {
            Self::Missing => return Ok(None),
            Self::Integer(number) => Some(*number as f64),
            Self::Single(number) => Some(f64::from(*number)),
            Self::Float(number) => Some(*number),
            Self::Time(unit, time) => Some(seconds(*unit, *time) as f64),
            Self::Text(text) if is_missing_number(text.trim()) => return Ok(None),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Bytes(_) | Self::List(_) => None,
        };
        let number = number.with_context(|| {
            format!(
                "{} is not a number; accepted are finite numbers",
                self.written()
            )
        })?;
        if number.is_infinite() {
            bail!(
                "{} is not finite; accepted are finite numbers",
                self.written()
            );
        }
        Ok((!number.is_nan()).then_some(number))
    }

    /// The value as a finite number of 32 bits, rounded to the nearest.
    ///
    /// # Errors
    /// Returns an error as [`number`](Self::number) does, or if the value exceeds the range.
    pub fn float32(&self) -> Result<Option<f32>> {
        let Some(number) = self.number()? else {
            return Ok(None);
        };
        let single = number as f32;
        if single.is_infinite() {
            bail!(
                "{} exceeds the numbers of 32 bits; accepted are {:e} to {:e}",
                self.written(),
                f32::MIN,
                f32::MAX
            );
        }
        Ok(Some(single))
    }

    /// The value as a text; the elements of a list are joined by spaces.
    ///
    /// # Errors
    /// Returns an error for an infinite value, and for a time, which has no unique text.
    pub fn text(&self) -> Result<Option<Cow<'a, str>>> {
        Ok(match self {
            Self::Missing => None,
            Self::Text(text) => Some(Cow::Borrowed(*text)),
            Self::Integer(_) => Some(self.written().into()),
            Self::Single(_) | Self::Float(_) => self.number()?.map(|_| self.written().into()),
            Self::Time(..) => bail!(
                "a timestamp or date is not a text; accepted are texts and numbers, or type = \"int32\" for its Unix seconds"
            ),
            Self::Bytes(_) => bail!("{} is not a text; accepted is UTF-8", self.written()),
            Self::List(list) => {
                let words = list.words()?;
                (!words.is_empty()).then(|| words.join(" ").into())
            }
        })
    }

    /// The elements of a list, or the words of a text.
    ///
    /// # Errors
    /// Returns an error as [`text`](Self::text) does.
    pub fn words(&self) -> Result<Vec<Cow<'a, str>>> {
        Ok(match self {
            Self::List(list) => list.words()?,
            Self::Text(text) => text.split_whitespace().map(Cow::Borrowed).collect(),
            _ => self.text()?.into_iter().collect(),
        })
    }

    /// The value as Unix seconds, rounded down; `unit` applies to a number without its own unit.
    ///
    /// # Errors
    /// Returns an error if the value is not a time, or is outside the seconds of 32 bits: the years 1901 to 2038.
    pub fn unix_seconds(&self, unit: Unit) -> Result<Option<i32>> {
        let of_unit = |number: i128| number.div_euclid(unit.per_second().into());
        let time = match self {
            Self::Missing => return Ok(None),
            Self::Integer(number) => Some(of_unit(*number)),
            Self::Time(unit, time) => Some(seconds(*unit, *time).into()),
            Self::Text(text) => {
                let text = text.trim();
                if is_missing_number(text) {
                    return Ok(None);
                }
                let of_number = || text.parse::<f64>().ok().and_then(|it| of_float(it, unit));
                let of_iso = || Some(string_to_datetime(&Utc, text).ok()?.timestamp().into());
                whole(text).map(of_unit).or_else(of_number).or_else(of_iso)
            }
            Self::Single(_) | Self::Float(_) => match self.number()? {
                None => return Ok(None),
                Some(number) => of_float(number, unit),
            },
            Self::Bytes(_) | Self::List(_) => None,
        };
        let time = time.with_context(|| {
            format!(
                "{} is not a time; accepted are timestamps, dates, ISO 8601 texts such as 2026-05-01T12:30:00Z, and numbers in unit = {:?}",
                self.written(),
                unit.as_str()
            )
        })?;
        let within = i32::try_from(time).map_err(|_| {
            anyhow!(
                "{} in unit = {:?} is not within the years 1901 to 2038{}",
                self.written(),
                unit.as_str(),
                self.hint(unit)
            )
        })?;
        Ok(Some(within))
    }

    /// The unit in which the number would be a recent time, for an error message.
    fn hint(&self, unit: Unit) -> String {
        let number = match self {
            Self::Time(..) => None,
            Self::Text(text) => text.trim().parse().ok(),
            _ => self.number().ok().flatten(),
        };
        let likely = number.and_then(|number: f64| {
            let mut units = Unit::ALL.into_iter().filter(|other| *other != unit);
            units.find(|unit| {
                let seconds = number / unit.per_second() as f64;
                (5e8..f64::from(i32::MAX)).contains(&seconds)
            })
        });
        likely.map_or(String::new(), |unit| {
            format!(
                "; set data.interactions.unit = {:?} if it counts those",
                unit.as_str()
            )
        })
    }
}

fn of_float(number: f64, unit: Unit) -> Option<i128> {
    let seconds = (number / unit.per_second() as f64).floor();
    // More than any time; the cast is exact or saturates.
    seconds.is_finite().then_some(seconds as i128)
}
