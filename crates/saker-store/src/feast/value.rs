//! `feast.types.Value` (ValueProto) and the protobuf `Timestamp`, with the field numbers of Feast's Value.proto.

use prost::Message;

use crate::StoreError;

/// One stored feature value.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// BYTES
    #[prost(bytes = "vec", tag = "1")]
    Bytes(Vec<u8>),
    /// STRING
    #[prost(string, tag = "2")]
    String(String),
    /// INT32
    #[prost(int32, tag = "3")]
    Int32(i32),
    /// INT64
    #[prost(int64, tag = "4")]
    Int64(i64),
    /// DOUBLE
    #[prost(double, tag = "5")]
    Double(f64),
    /// FLOAT
    #[prost(float, tag = "6")]
    Float(f32),
    /// BOOL
    #[prost(bool, tag = "7")]
    Bool(bool),
    /// UNIX_TIMESTAMP, in seconds
    #[prost(int64, tag = "8")]
    UnixTimestamp(i64),
    /// BYTES_LIST
    #[prost(message, tag = "11")]
    BytesList(list::Bytes),
    /// STRING_LIST
    #[prost(message, tag = "12")]
    StringList(list::String),
    /// INT32_LIST
    #[prost(message, tag = "13")]
    Int32List(list::Int32),
    /// INT64_LIST
    #[prost(message, tag = "14")]
    Int64List(list::Int64),
    /// DOUBLE_LIST
    #[prost(message, tag = "15")]
    DoubleList(list::Double),
    /// FLOAT_LIST
    #[prost(message, tag = "16")]
    FloatList(list::Float),
    /// BOOL_LIST
    #[prost(message, tag = "17")]
    BoolList(list::Bool),
    /// UNIX_TIMESTAMP_LIST, in seconds
    #[prost(message, tag = "18")]
    UnixTimestampList(list::Int64),
}

/// The list messages.
pub mod list {
    /// Byte strings.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bytes {
        /// The elements.
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub val: Vec<Vec<u8>>,
    }

    /// Strings.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct String {
        /// The elements.
        #[prost(string, repeated, tag = "1")]
        pub val: Vec<std::string::String>,
    }

    /// 32-bit integers.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Int32 {
        /// The elements.
        #[prost(int32, repeated, tag = "1")]
        pub val: Vec<i32>,
    }

    /// 64-bit integers, and Unix timestamps.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Int64 {
        /// The elements.
        #[prost(int64, repeated, tag = "1")]
        pub val: Vec<i64>,
    }

    /// 64-bit floats.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Double {
        /// The elements.
        #[prost(double, repeated, tag = "1")]
        pub val: Vec<f64>,
    }

    /// 32-bit floats.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Float {
        /// The elements.
        #[prost(float, repeated, tag = "1")]
        pub val: Vec<f32>,
    }

    /// Booleans.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bool {
        /// The elements.
        #[prost(bool, repeated, tag = "1")]
        pub val: Vec<bool>,
    }
}

/// The message around a [`Value`]. Feast writes a null as a message without a value, which has zero bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct ValueProto {
    #[prost(
        oneof = "Value",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18"
    )]
    val: Option<Value>,
}

impl Value {
    /// The bytes of a field; empty for a null.
    #[must_use]
    pub fn to_bytes(value: Option<&Self>) -> Vec<u8> {
        // Encoded by hand, because ValueProto would need a copy of the value.
        let mut bytes = Vec::new();
        if let Some(value) = value {
            value.encode(&mut bytes);
        }
        bytes
    }

    /// Reads the bytes of a field. `None` is a null: no value, or NULL (field 19).
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if the bytes are not a ValueProto.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, StoreError> {
        ValueProto::decode(bytes)
            .map(|proto| proto.val)
            .map_err(|error| StoreError::Data(format!("not a Feast ValueProto: {error}")))
    }

    /// Feast's name of the value's type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "BYTES",
            Self::String(_) => "STRING",
            Self::Int32(_) => "INT32",
            Self::Int64(_) => "INT64",
            Self::Double(_) => "DOUBLE",
            Self::Float(_) => "FLOAT",
            Self::Bool(_) => "BOOL",
            Self::UnixTimestamp(_) => "UNIX_TIMESTAMP",
            Self::BytesList(_) => "BYTES_LIST",
            Self::StringList(_) => "STRING_LIST",
            Self::Int32List(_) => "INT32_LIST",
            Self::Int64List(_) => "INT64_LIST",
            Self::DoubleList(_) => "DOUBLE_LIST",
            Self::FloatList(_) => "FLOAT_LIST",
            Self::BoolList(_) => "BOOL_LIST",
            Self::UnixTimestampList(_) => "UNIX_TIMESTAMP_LIST",
        }
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970, UTC.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// From microseconds since 1970, UTC.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self {
            seconds: micros.div_euclid(1_000_000),
            nanos: micros.rem_euclid(1_000_000) as i32 * 1000,
        }
    }

    /// The bytes of a `_ts:{view}` field.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Reads a `_ts:{view}` field.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if the bytes are not a Timestamp.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        Self::decode(bytes)
            .map_err(|error| StoreError::Data(format!("not a protobuf Timestamp: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields() {
        assert_eq!(Value::from_bytes(b"").unwrap(), None);
        assert_eq!(Value::to_bytes(None), b"");
        // null_val = NULL
        assert_eq!(Value::from_bytes(&[0x98, 0x01, 0x00]).unwrap(), None);
        assert!(Value::from_bytes(&[0x18]).is_err());
    }

    #[test]
    fn every_kind_is_read_back() {
        let values = [
            Value::Bytes(vec![1, 2]),
            Value::String(String::new()),
            Value::Int32(i32::MIN),
            Value::Int64(i64::MIN),
            Value::Double(-0.0),
            Value::Float(f32::INFINITY),
            Value::Bool(false),
            Value::UnixTimestamp(1_777_636_800),
            Value::BytesList(list::Bytes {
                val: vec![vec![], vec![3]],
            }),
            Value::StringList(list::String {
                val: vec!["a".into()],
            }),
            Value::Int32List(list::Int32 { val: vec![-1, 7] }),
            Value::Int64List(list::Int64 { val: vec![] }),
            Value::DoubleList(list::Double { val: vec![0.5] }),
            Value::FloatList(list::Float {
                val: vec![0.5, 1.0],
            }),
            Value::BoolList(list::Bool {
                val: vec![true, false],
            }),
            Value::UnixTimestampList(list::Int64 { val: vec![1] }),
        ];
        for value in values {
            let bytes = Value::to_bytes(Some(&value));
            assert_eq!(Value::from_bytes(&bytes).unwrap(), Some(value));
        }
    }
}
