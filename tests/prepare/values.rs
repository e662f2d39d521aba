//! Every Arrow type with a value, without one, and with what no column accepts: read as it is, or refused.

use std::sync::Arc;

use arrow::array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Float16Type, Int8Type, Int16Type, Int32Type,
    Int64Type, RunEndIndexType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array,
    Decimal128Array, DictionaryArray, DurationSecondArray, FixedSizeBinaryArray,
    FixedSizeListArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, IntervalYearMonthArray, LargeBinaryArray, LargeListArray,
    LargeListViewArray, LargeStringArray, ListArray, ListViewArray, MapBuilder, NullArray,
    PrimitiveArray, RunArray, StringArray, StringBuilder, StringViewArray, StructArray,
    Time32SecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Field};
use proptest::prelude::*;
use saker_pipeline::Unit;
use saker_prepare::values::Values;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// What a source holds in one row.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Int(i128),
    Float(f64),
    Text(String),
}

fn cell() -> impl Strategy<Value = Cell> {
    let integers = prop::sample::select(vec![
        0,
        1,
        -1,
        127,
        i128::from(i32::MAX),
        i128::from(i32::MAX) + 1,
        i128::from(i32::MIN),
        i128::from(i32::MIN) - 1,
        (1 << 53) + 1,
        i128::from(i64::MAX),
        i128::from(i64::MIN),
        i128::from(u64::MAX),
    ]);
    let floats = prop::sample::select(vec![
        0.0,
        -0.0,
        7.0,
        -3.0,
        5.5,
        1e-9,
        1e39,
        -1e300,
        2_147_483_647.0,
        2_147_483_648.0,
        1e16,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]);
    let texts = prop::sample::select(vec![
        "",
        " ",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-inf",
        "Infinity",
        "7",
        "7.0",
        "7.",
        "-7",
        "+7",
        "5.5",
        "1e1",
        "1e400",
        "007",
        " 42 ",
        "2147483648",
        "18446744073709551615",
        "0x10",
        "1_000",
        ".",
        "-",
        ".0",
        "Coffee Beans",
        "Müller",
        "٣",
    ]);
    prop_oneof![
        Just(Cell::Null),
        integers.prop_map(Cell::Int),
        (-200i128..200).prop_map(Cell::Int),
        floats.prop_map(Cell::Float),
        any::<f32>().prop_map(|number| Cell::Float(number.into())),
        texts.prop_map(|text| Cell::Text(text.to_owned())),
        "[0-9a-z .+-]{0,5}".prop_map(Cell::Text),
    ]
}

/// The cell in every type that can hold it exactly, without lists and dictionaries.
fn arrays(cell: &Cell) -> Vec<ArrayRef> {
    fn int<T: TryFrom<i128>>(value: i128) -> Option<Vec<Option<T>>> {
        Some(vec![Some(T::try_from(value).ok()?)])
    }
    let mut arrays: Vec<Option<ArrayRef>> = Vec::new();
    macro_rules! add {
        ($kind:ty, $values:expr) => {
            arrays.push($values.map(|values| Arc::new(<$kind>::from(values)) as ArrayRef))
        };
    }
    match cell {
        Cell::Null => {
            add!(NullArray, Some(()).map(|()| NullArray::new(1)));
            add!(BooleanArray, Some(vec![None::<bool>]));
            add!(Int8Array, Some(vec![None::<i8>]));
            add!(UInt64Array, Some(vec![None::<u64>]));
            add!(Float32Array, Some(vec![None::<f32>]));
            add!(Float64Array, Some(vec![None::<f64>]));
            add!(Decimal128Array, Some(vec![None::<i128>]));
            add!(StringArray, Some(vec![None::<&str>]));
            add!(LargeStringArray, Some(vec![None::<&str>]));
            add!(StringViewArray, Some(vec![None::<&str>]));
            add!(BinaryArray, Some(vec![None::<&[u8]>]));
            add!(TimestampSecondArray, Some(vec![None::<i64>]));
            add!(Date32Array, Some(vec![None::<i32>]));
        }
        Cell::Int(value) => {
            add!(Int8Array, int::<i8>(*value));
            add!(Int16Array, int::<i16>(*value));
            add!(Int32Array, int::<i32>(*value));
            add!(Int64Array, int::<i64>(*value));
            add!(UInt8Array, int::<u8>(*value));
            add!(UInt16Array, int::<u16>(*value));
            add!(UInt32Array, int::<u32>(*value));
            add!(UInt64Array, int::<u64>(*value));
            let bit = (0..=1).contains(value).then_some(vec![Some(*value == 1)]);
            add!(BooleanArray, bit);
            let decimal = |scale| {
                let all = Decimal128Array::from(vec![*value * 10i128.pow(scale)]);
                let all = all.with_precision_and_scale(38, scale as i8).unwrap();
                Some(Arc::new(all) as ArrayRef)
            };
            arrays.push(decimal(0));
            arrays.push(decimal(2));
        }
        Cell::Float(value) => {
            add!(Float64Array, Some(vec![*value]));
            let single = *value as f32;
            let exact = value.is_nan() || f64::from(single) == *value;
            add!(Float32Array, exact.then_some(vec![single]));
            let half = Half::from_f64(*value);
            let exact = value.is_nan() || half.to_f64() == *value;
            add!(Float16Array, exact.then_some(vec![half]));
        }
        Cell::Text(text) => {
            add!(StringArray, Some(vec![text.as_str()]));
            add!(LargeStringArray, Some(vec![text.as_str()]));
            add!(StringViewArray, Some(vec![text.as_str()]));
            add!(BinaryArray, Some(vec![text.as_bytes()]));
            add!(LargeBinaryArray, Some(vec![text.as_bytes()]));
            add!(BinaryViewArray, Some(vec![text.as_bytes()]));
            if !text.is_empty() {
                let fixed = FixedSizeBinaryArray::try_from_iter([text.as_bytes()].into_iter());
                arrays.push(Some(Arc::new(fixed.unwrap())));
            }
        }
    }
    arrays.into_iter().flatten().collect()
}

fn dictionary<K: ArrowDictionaryKeyType>(values: &ArrayRef) -> ArrayRef {
    let keys = PrimitiveArray::<K>::from_iter_values([K::Native::usize_as(0)]);
    Arc::new(DictionaryArray::try_new(keys, ArrayRef::clone(values)).unwrap())
}

fn run<R: RunEndIndexType>(values: &ArrayRef) -> ArrayRef {
    let ends = PrimitiveArray::<R>::from_iter_values([R::Native::usize_as(1)]);
    Arc::new(RunArray::try_new(&ends, values.as_ref()).unwrap())
}

/// The array itself, and as a dictionary of every key and runs of every length.
fn encodings(array: &ArrayRef) -> Vec<ArrayRef> {
    let mut encodings = vec![ArrayRef::clone(array)];
    if *array.data_type() == DataType::Null {
        return encodings;
    }
    encodings.extend([
        dictionary::<Int8Type>(array),
        dictionary::<Int16Type>(array),
        dictionary::<Int32Type>(array),
        dictionary::<Int64Type>(array),
        dictionary::<UInt8Type>(array),
        dictionary::<UInt16Type>(array),
        dictionary::<UInt32Type>(array),
        dictionary::<UInt64Type>(array),
        run::<Int16Type>(array),
        run::<Int32Type>(array),
        run::<Int64Type>(array),
    ]);
    encodings
}

/// A list with the array's values as its elements, in every type of list.
pub(crate) fn lists(elements: &ArrayRef) -> Vec<ArrayRef> {
    let field = Arc::new(Field::new_list_field(elements.data_type().clone(), true));
    let values = || ArrayRef::clone(elements);
    let count = elements.len();
    vec![
        Arc::new(ListArray::new(
            Arc::clone(&field),
            OffsetBuffer::from_lengths([count]),
            values(),
            None,
        )),
        Arc::new(LargeListArray::new(
            Arc::clone(&field),
            OffsetBuffer::from_lengths([count]),
            values(),
            None,
        )),
        Arc::new(ListViewArray::new(
            Arc::clone(&field),
            ScalarBuffer::from(vec![0]),
            ScalarBuffer::from(vec![count as i32]),
            values(),
            None,
        )),
        Arc::new(LargeListViewArray::new(
            Arc::clone(&field),
            ScalarBuffer::from(vec![0]),
            ScalarBuffer::from(vec![count as i64]),
            values(),
            None,
        )),
        Arc::new(FixedSizeListArray::new(field, count as i32, values(), None)),
    ]
}

/// What a cell is, by the rules of the documentation; `Err` where it must be refused.
mod rules {
    use super::Cell;

    fn missing(text: &str) -> bool {
        matches!(
            text.trim().to_lowercase().as_str(),
            "" | "nan" | "+nan" | "-nan"
        )
    }

    pub(super) fn int32(cell: &Cell) -> Result<Option<i32>, ()> {
        match cell {
            Cell::Null => Ok(None),
            Cell::Int(value) => i32::try_from(*value).map(Some).map_err(|_| ()),
            Cell::Float(value) if value.is_nan() => Ok(None),
            Cell::Float(value) => {
                let least = f64::from(i32::MIN);
                let fits = value.fract() == 0.0 && (least..=f64::from(i32::MAX)).contains(value);
                fits.then_some(Some(*value as i32)).ok_or(())
            }
            Cell::Text(text) if missing(text) => Ok(None),
            Cell::Text(text) => {
                let text = text.trim();
                let whole = match text.find('.') {
                    Some(point) if text[point + 1..].chars().all(|digit| digit == '0') => {
                        &text[..point]
                    }
                    _ => text,
                };
                whole.parse().map(Some).map_err(|_| ())
            }
        }
    }

    pub(super) fn float32(cell: &Cell) -> Result<Option<f32>, ()> {
        let number = match cell {
            Cell::Null => return Ok(None),
            Cell::Int(value) => *value as f64,
            Cell::Float(value) => *value,
            Cell::Text(text) if missing(text) => return Ok(None),
            Cell::Text(text) => text.trim().parse().map_err(|_| ())?,
        };
        if number.is_nan() {
            return Ok(None);
        }
        let single = number as f32;
        single.is_finite().then_some(Some(single)).ok_or(())
    }

    /// Whether it has a text, and which, where it is one.
    pub(super) fn has_text(cell: &Cell) -> Result<bool, ()> {
        match cell {
            Cell::Float(value) if value.is_infinite() => Err(()),
            Cell::Float(value) => Ok(!value.is_nan()),
            Cell::Null => Ok(false),
            _ => Ok(true),
        }
    }
}

proptest! {
    #[test]
    fn every_type_is_read_as_what_it_is(cell in cell()) {
        for array in arrays(&cell).iter().flat_map(encodings) {
            let kind = array.data_type().clone();
            let values = Values::of(&array).unwrap();
            prop_assert_eq!(values.len(), 1);
            let value = values.value(0);
            prop_assert_eq!(value.int32().map_err(|_| ()), rules::int32(&cell), "{} {:?}", kind, cell);
            prop_assert_eq!(value.float32().map_err(|_| ()), rules::float32(&cell), "{} {:?}", kind, cell);
            let id = rules::int32(&cell).and_then(|id| match id {
                Some(id) if id < 0 => Err(()),
                id => Ok(id),
            });
            prop_assert_eq!(value.id().map_err(|_| ()), id, "{} {:?}", kind, cell);
            let text = value.text().map_err(|_| ());
            prop_assert_eq!(text.as_ref().map(Option::is_some).map_err(|_| ()), rules::has_text(&cell));
            if let Ok(Some(text)) = text {
                match &cell {
                    Cell::Text(held) => prop_assert_eq!(&text, held),
                    // The text gives the number back.
                    Cell::Int(held) => prop_assert_eq!(text.parse::<f64>().unwrap(), *held as f64),
                    Cell::Float(held) => {
                        let exact = text.parse::<f64>() == Ok(*held)
                            || text.parse::<f32>() == Ok(*held as f32);
                        prop_assert!(exact, "{} {:?} {}", kind, cell, text);
                    }
                    Cell::Null => prop_assert!(false, "a null has the text {}", text),
                }
            }
        }
    }

    #[test]
    fn every_list_has_its_elements(cell in cell()) {
        for elements in arrays(&cell).iter().flat_map(encodings) {
            for list in lists(&elements) {
                let kind = list.data_type().clone();
                let values = Values::of(&list).unwrap();
                prop_assert!(values.value(0).int32().is_err(), "{} is no integer", kind);
                prop_assert!(values.value(0).float32().is_err(), "{} is no number", kind);
                prop_assert!(values.value(0).unix_seconds(Unit::S).is_err(), "{} is no time", kind);
                let words = values.value(0).words().map_err(|_| ());
                match &cell {
                    Cell::Text(text) => {
                        let trimmed = Some(text.trim()).filter(|text| !text.is_empty());
                        let expected = Vec::from_iter(trimmed.map(str::to_owned));
                        prop_assert_eq!(words.unwrap(), expected, "{} {:?}", kind, cell);
                    }
                    cell => {
                        let expected = rules::has_text(cell).map(usize::from);
                        prop_assert_eq!(words.map(|words| words.len()), expected, "{} {:?}", kind, cell);
                    }
                }
            }
        }
    }

    #[test]
    fn times_are_seconds_rounded_down(time in any::<i64>(), days in -30_000i32..30_000) {
        let of = |array: ArrayRef| Values::of(&array).unwrap();
        let seconds = |per_second: i64| i32::try_from(time.div_euclid(per_second)).map_err(|_| ());
        let zone = "+02:00";
        let units: [(i64, Unit, Vec<ArrayRef>); 4] = [
            (1, Unit::S, vec![
                Arc::new(TimestampSecondArray::from(vec![time])),
                Arc::new(TimestampSecondArray::from(vec![time]).with_timezone(zone)),
            ]),
            (1_000, Unit::Ms, vec![
                Arc::new(TimestampMillisecondArray::from(vec![time])),
                Arc::new(TimestampMillisecondArray::from(vec![time]).with_timezone(zone)),
                Arc::new(Date64Array::from(vec![time])),
            ]),
            (1_000_000, Unit::Us, vec![
                Arc::new(TimestampMicrosecondArray::from(vec![time])),
                Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone(zone)),
            ]),
            (1_000_000_000, Unit::Ns, vec![
                Arc::new(TimestampNanosecondArray::from(vec![time])),
                Arc::new(TimestampNanosecondArray::from(vec![time]).with_timezone(zone)),
            ]),
        ];
        for (per_second, unit, arrays) in units {
            let expected = seconds(per_second).map(Some);
            for array in arrays {
                let kind = array.data_type().clone();
                let values = of(array);
                // A type with a unit keeps it, whatever the definition says of numbers.
                for other in Unit::ALL {
                    let read = values.value(0).unix_seconds(other).map_err(|_| ());
                    prop_assert_eq!(read, expected, "{} {}", kind, time);
                }
                prop_assert_eq!(values.value(0).int32().map_err(|_| ()), expected, "{}", kind);
                prop_assert!(values.value(0).text().is_err());
            }
            let numbers: [ArrayRef; 2] = [
                Arc::new(Int64Array::from(vec![time])),
                Arc::new(StringArray::from(vec![time.to_string()])),
            ];
            for array in numbers {
                let kind = array.data_type().clone();
                let read = of(array).value(0).unix_seconds(unit).map_err(|_| ());
                prop_assert_eq!(read, expected, "{} {} {:?}", kind, time, unit);
            }
        }
        let date = of(Arc::new(Date32Array::from(vec![days])));
        let expected = i32::try_from(i64::from(days) * 86_400).map(Some).map_err(|_| ());
        prop_assert_eq!(date.value(0).unix_seconds(Unit::S).map_err(|_| ()), expected);
    }
}

#[test]
fn texts_of_times_are_read() {
    let seconds = |text: &str, unit| {
        let values = Values::of(&(Arc::new(StringArray::from(vec![text])) as ArrayRef)).unwrap();
        let read = values.value(0).unix_seconds(unit);
        read.map_err(|error| format!("{error:#}"))
    };
    for text in [
        "1700000591",
        "1700000591.0",
        "1700000591.9",
        "1.700000591e9",
        "2023-11-14T22:23:11Z",
        "2023-11-14 22:23:11",
        "2023-11-14T22:23:11.75",
        "2023-11-15T00:23:11+02:00",
        " 2023-11-14T22:23:11Z ",
    ] {
        assert_eq!(seconds(text, Unit::S), Ok(Some(1_700_000_591)), "{text}");
    }
    assert_eq!(seconds("2023-11-14", Unit::Ms), Ok(Some(1_699_920_000)));
    assert_eq!(seconds("nan", Unit::S), Ok(None));
    assert_eq!(seconds("", Unit::S), Ok(None));
    for (text, parts) in [
        ("yesterday", ["\"yesterday\"", "ISO 8601"]),
        ("inf", ["\"inf\"", "is not a time"]),
        ("2023-13-14", ["\"2023-13-14\"", "is not a time"]),
        (
            "1700000591000",
            ["1901 to 2038", "data.interactions.unit = \"ms\""],
        ),
        ("2150-01-01", ["2150-01-01", "1901 to 2038"]),
    ] {
        let error = seconds(text, Unit::S).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
        }
    }
}

#[test]
fn types_without_a_value_of_ours_are_refused() {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    maps.append(true).unwrap();
    let field = Arc::new(Field::new("a", DataType::Int32, true));
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let mut refused: Vec<ArrayRef> = vec![
        Arc::new(Time32SecondArray::from(vec![1])),
        Arc::new(DurationSecondArray::from(vec![1])),
        Arc::new(IntervalYearMonthArray::from(vec![1])),
        Arc::new(maps.finish()),
        Arc::new(StructArray::from(vec![(field, ArrayRef::clone(&ints))])),
    ];
    refused.extend(lists(&lists(&ints)[0]));
    refused.extend(lists(
        &(Arc::new(Time32SecondArray::from(vec![1])) as ArrayRef),
    ));
    for array in refused {
        let error = format!("{:#}", Values::of(&array).unwrap_err());
        assert!(error.contains("is not read; accepted are"), "{error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let arrays: [ArrayRef; 4] = [
        Arc::new(BinaryArray::from(vec![b"Caf\xE9".as_slice()])),
        Arc::new(LargeBinaryArray::from(vec![b"Caf\xE9".as_slice()])),
        Arc::new(BinaryViewArray::from(vec![b"Caf\xE9".as_slice()])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([b"Caf\xE9"].iter()).unwrap()),
    ];
    for array in arrays {
        let values = Values::of(&array).unwrap();
        let value = values.value(0);
        let error = format!("{:#}", value.text().unwrap_err());
        assert!(
            error.contains(r"Caf\xe9") && error.contains("UTF-8"),
            "{error}"
        );
        assert!(value.int32().is_err() && value.words().is_err());
        assert!(value.unix_seconds(Unit::S).is_err() && value.float32().is_err());
    }
}

#[test]
fn slices_and_decimals_are_read_by_row() {
    let decimals = Decimal128Array::from(vec![Some(1250), None, Some(-700)]);
    let decimals = decimals.with_precision_and_scale(10, 2).unwrap();
    let decimals: ArrayRef = Arc::new(decimals);
    let values = Values::of(&decimals.slice(1, 2)).unwrap();
    let read: Vec<_> = values.iter().map(|value| value.int32().unwrap()).collect();
    assert_eq!(read, [None, Some(-7)]);
    let whole = Values::of(&decimals).unwrap();
    assert_eq!(whole.value(0).float32().unwrap(), Some(12.5));
    assert_eq!(whole.value(0).text().unwrap().unwrap(), "12.50");
    assert!(whole.value(0).int32().is_err(), "a fraction is no integer");

    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a b"), None, Some("c")]));
    let keys = PrimitiveArray::<Int32Type>::from(vec![Some(2), None, Some(1), Some(0)]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::try_new(keys, texts).unwrap());
    let values = Values::of(&dictionary.slice(1, 3)).unwrap();
    let read: Vec<_> = values.iter().map(|value| value.text().unwrap()).collect();
    assert_eq!(read, [None, None, Some("a b".into())]);
}
