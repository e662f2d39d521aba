//! What this crate reads is what Arrow writes, and the other way round.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int8Array, Int32Array,
    Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int32Type, TimeUnit as ArrowUnit, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use saker_tables::{NewColumn, NewValues, Table, TimeUnit, Values, write};

fn file(columns: Vec<(&str, ArrayRef)>, rows_a_group: usize) -> bytes::Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    let batch = batch.unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_a_group.max(1)))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn read(column: ArrayRef) -> Values {
    let table = Table::read_bytes(file(vec![("x", column)], 2)).unwrap();
    table.column("x").unwrap().clone()
}

#[test]
fn every_type_is_read_as_what_it_is() {
    let ints = Values::Integers(vec![Some(-1), None, Some(7)]);
    assert_eq!(
        read(Arc::new(Int8Array::from(vec![Some(-1), None, Some(7)]))),
        ints
    );
    assert_eq!(
        read(Arc::new(Int32Array::from(vec![Some(-1), None, Some(7)]))),
        ints
    );
    assert_eq!(
        read(Arc::new(Int64Array::from(vec![Some(-1), None, Some(7)]))),
        ints
    );
    let large = Values::Integers(vec![Some(i64::from(u32::MAX)), None]);
    assert_eq!(
        read(Arc::new(UInt32Array::from(vec![Some(u32::MAX), None]))),
        large
    );
    assert_eq!(
        read(Arc::new(UInt64Array::from(vec![
            Some(u64::from(u32::MAX)),
            None
        ]))),
        large
    );
    let floats = |single| Values::Floats {
        values: vec![Some(0.5), None],
        single,
    };
    assert_eq!(
        read(Arc::new(Float32Array::from(vec![Some(0.5), None]))),
        floats(true)
    );
    assert_eq!(
        read(Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        floats(false)
    );
    let texts = Values::Texts(vec![Some("ä".to_owned()), None, Some(String::new())]);
    assert_eq!(
        read(Arc::new(StringArray::from(vec![Some("ä"), None, Some("")]))),
        texts
    );
    assert_eq!(
        read(Arc::new(LargeStringArray::from(vec![
            Some("ä"),
            None,
            Some("")
        ]))),
        texts
    );
    let dictionary =
        arrow::array::DictionaryArray::<Int32Type>::from_iter([Some("ä"), None, Some("")]);
    assert_eq!(read(Arc::new(dictionary)), texts);
    assert_eq!(
        read(Arc::new(BooleanArray::from(vec![Some(true), None]))),
        Values::Bools(vec![Some(true), None])
    );
    let times = |unit, utc| Values::Times {
        values: vec![Some(5), None],
        unit,
        utc,
    };
    let micros = TimestampMicrosecondArray::from(vec![Some(5), None]);
    assert_eq!(
        read(Arc::new(micros.clone())),
        times(TimeUnit::Microseconds, false)
    );
    assert_eq!(
        read(Arc::new(micros.with_timezone("UTC"))),
        times(TimeUnit::Microseconds, true)
    );
    let nanos = TimestampNanosecondArray::from(vec![Some(5), None]);
    assert_eq!(read(Arc::new(nanos)), times(TimeUnit::Nanoseconds, false));
}

#[test]
fn other_types_are_named_and_leave_the_rest_readable() {
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), Some(2)])]);
    let date: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![1]));
    let bytes: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![b"x".as_slice()]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("list", Arc::new(list)),
        ("date", date),
        ("bytes", bytes),
        ("id", Arc::new(Int32Array::from(vec![3]))),
    ];
    let table = Table::read_bytes(file(columns, 10)).unwrap();
    assert_eq!(table.int32s("id").unwrap(), [3]);
    for name in ["list", "date", "bytes"] {
        assert!(
            matches!(table.column(name).unwrap(), Values::Unsupported(_)),
            "{name}"
        );
    }
    let message = table.int32s("date").unwrap_err().to_string();
    assert!(
        message.contains("date") && message.contains("32-bit integers"),
        "{message}"
    );
    let message = table.column("price").unwrap_err().to_string();
    assert_eq!(
        message,
        "there is no column price; there are list, date, bytes, id"
    );
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2, u64::MAX]));
    let message = Table::read_bytes(file(vec![("x", unsigned)], 2))
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "column x, row 3: 18446744073709551615, accepted: up to 9223372036854775807"
    );
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
    let message = Table::read_bytes(file(vec![("x", wide)], 9))
        .unwrap()
        .int32s("x")
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "column x, row 2: 1099511627776, accepted: 32-bit integers"
    );
    assert!(Table::read_bytes(b"PAR1 no".to_vec().into()).is_err());
    assert!(Table::read(std::path::Path::new("/there/is/no/file")).is_err());
}

#[test]
fn files_of_a_table_have_the_same_columns() {
    let part = |array: ArrayRef| Table::read_bytes(file(vec![("x", array)], 9)).unwrap();
    let mut all = part(Arc::new(Int32Array::from(vec![1])));
    all.append(part(Arc::new(Int64Array::from(vec![2]))))
        .unwrap();
    assert_eq!(all.rows(), 2);
    assert_eq!(all.int32s("x").unwrap(), [1, 2]);
    let message = all
        .append(part(Arc::new(StringArray::from(vec!["3"]))))
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "the columns x (text) differ from those of the files before it: x (integer)"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_by_arrow_and_by_us(
        rows in prop::collection::vec((any::<i32>(), any::<Option<i32>>(), ".{0,6}", any::<i64>()), 0..50),
    ) {
        let texts: Vec<&str> = rows.iter().map(|row| row.2.as_str()).collect();
        let bytes = write(&[
            NewColumn { name: "user", values: NewValues::Int32s(rows.iter().map(|row| row.0).collect()) },
            NewColumn { name: "device", values: NewValues::OptionalInt32s(rows.iter().map(|row| row.1).collect()) },
            NewColumn { name: "kind", values: NewValues::Texts(texts.clone()) },
            NewColumn { name: "at", values: NewValues::Microseconds(rows.iter().map(|row| row.3).collect()) },
        ]).unwrap();
        let ours = Table::read_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(ours.rows(), rows.len());
        prop_assert_eq!(ours.int32s("user").unwrap(), rows.iter().map(|row| row.0).collect::<Vec<_>>());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let kinds: Vec<DataType> = reader.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let utc = DataType::Timestamp(ArrowUnit::Microsecond, Some("UTC".into()));
        prop_assert_eq!(kinds, [DataType::Int32, DataType::Int32, DataType::Utf8, utc]);
        let mut at = 0;
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let (user, device, text, time) = &rows[at];
                prop_assert_eq!(batch.column(0).as_primitive::<Int32Type>().value(row), *user);
                let found = batch.column(1);
                let found = (!found.is_null(row)).then(|| found.as_primitive::<Int32Type>().value(row));
                prop_assert_eq!(found, *device);
                prop_assert_eq!(batch.column(2).as_string::<i32>().value(row), text);
                prop_assert_eq!(batch.column(3).as_primitive::<TimestampMicrosecondType>().value(row), *time);
                at += 1;
            }
        }
        prop_assert_eq!(at, rows.len());
    }

    #[test]
    fn nulls_stay_in_their_rows(values in prop::collection::vec(any::<Option<i64>>(), 0..300), group in 1usize..40) {
        let array: ArrayRef = Arc::new(Int64Array::from(values.clone()));
        let table = Table::read_bytes(file(vec![("x", array)], group)).unwrap();
        prop_assert_eq!(table.column("x").unwrap(), &Values::Integers(values));
    }
}
