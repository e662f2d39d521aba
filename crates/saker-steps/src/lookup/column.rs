//! Features as columns, in the types that the outputs declare.

use std::sync::Arc;

use saker_contract::ids::UNKNOWN;
use saker_store::feast::Value;
use saker_workflow::Slice;
use triton_backend::{DataType, Error, Response, TensorConfig};

use super::codes::{Coded, Vocabulary};

/// One feature output.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Name of the feature and of the output.
    pub name: String,
    /// Index among the config's outputs.
    output: usize,
    /// Type of the output.
    pub data_type: DataType,
    /// Elements per entity: 1, or the length of a list feature.
    width: usize,
    default: Vec<Number>,
    /// The codes of the feature's texts, if it is a text feature.
    vocabulary: Option<Arc<Vocabulary>>,
}

/// The result of reading a stored value.
enum Read {
    Numbers,
    /// The value means "no value".
    Nothing,
    /// A text that training did not see. It has no code, and the store is not at fault.
    Unseen(String),
    Unreadable(String),
}

/// A stored or default value before its conversion to the output's type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Feature {
    /// Reads the output's type, width and default. Without `default`, the default is -1 for integers, 0 for floats and false for booleans.
    ///
    /// # Errors
    /// Returns an error if the shape or the default is invalid.
    pub fn new(
        output: usize,
        config: &TensorConfig,
        default: Option<serde_json::Value>,
    ) -> Result<Self, Error> {
        // The ids define the first dimension; the others must be known.
        let width = config.dims.iter().skip(1).try_fold(1_usize, |width, &dim| {
            usize::try_from(dim)
                .ok()
                .filter(|&dim| dim > 0)
                .and_then(|dim| width.checked_mul(dim))
        });
        let width = width.ok_or_else(|| {
            Error::invalid_argument(format!(
                "output '{}' has dims {:?}; accepted: [-1], or [-1, n] for a list of n values",
                config.name, config.dims
            ))
        })?;
        let refuse = |value: &serde_json::Value| {
            Error::invalid_argument(format!(
                "parameter 'DEFAULTS' (or 'DEFAULT_USER_AGE', which means 'age') gives '{}' the value {value}; accepted: one {} or a list of {width}",
                config.name, config.data_type
            ))
        };
        let defaults = match &default {
            None => vec![
                match config.data_type {
                    DataType::Fp32 | DataType::Fp64 => Number::Float(0.0),
                    DataType::Bool => Number::Bool(false),
                    _ => Number::Int(UNKNOWN.into()),
                };
                width
            ],
            Some(serde_json::Value::Array(values)) if values.len() == width => values
                .iter()
                .map(|value| json_number(value).ok_or_else(|| refuse(value)))
                .collect::<Result<_, _>>()?,
            Some(value) => vec![json_number(value).ok_or_else(|| refuse(value))?; width],
        };
        let feature = Self {
            name: config.name.clone(),
            output,
            data_type: config.data_type,
            width,
            default: defaults,
            vocabulary: None,
        };
        let mut probe = Column::new(feature.data_type);
        match (probe.push(&feature.default), default) {
            (false, Some(value)) => Err(refuse(&value)),
            _ => Ok(feature),
        }
    }

    /// Adds the codes of the feature's texts.
    #[must_use]
    pub fn with_vocabulary(mut self, vocabulary: Option<Arc<Vocabulary>>) -> Self {
        self.vocabulary = vocabulary;
        self
    }

    /// Reads the numbers of a value into `out`.
    fn read(&self, value: &Value, out: &mut Vec<Number>) -> Read {
        let coded = match (&self.vocabulary, value) {
            (Some(vocabulary), Value::String(text)) => (vocabulary, vocabulary.code(text), text),
            _ if numbers(value, out) && out.len() == self.width => return Read::Numbers,
            _ => return Read::Unreadable(self.mismatch(value)),
        };
        match coded {
            (_, Coded::Code(code), _) => {
                out.clear();
                out.extend(std::iter::repeat_n(Number::Int(code), self.width));
                Read::Numbers
            }
            (_, Coded::Nothing, _) => Read::Nothing,
            (vocabulary, Coded::Unknown, text) => Read::Unseen(format!(
                "the store holds the text {text:?} for feature '{}', which is not among the {} texts of the training data",
                self.name,
                vocabulary.len()
            )),
        }
    }

    fn mismatch(&self, value: &Value) -> String {
        format!(
            "the store holds a {} for feature '{}', which does not fit the output's {} [-1, {}]",
            value.type_name(),
            self.name,
            self.data_type,
            self.width
        )
    }
}

fn json_number(value: &serde_json::Value) -> Option<Number> {
    match value {
        serde_json::Value::Bool(value) => Some(Number::Bool(*value)),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Number::Int)
            .or_else(|| number.as_f64().map(Number::Float)),
        _ => None,
    }
}

/// Reads the numbers of a value into `out`; returns `false` for strings and bytes.
fn numbers(value: &Value, out: &mut Vec<Number>) -> bool {
    out.clear();
    match value {
        Value::Int32(value) => out.push(Number::Int(i64::from(*value))),
        Value::Int64(value) | Value::UnixTimestamp(value) => out.push(Number::Int(*value)),
        Value::Double(value) => out.push(Number::Float(*value)),
        Value::Float(value) => out.push(Number::Float(f64::from(*value))),
        Value::Bool(value) => out.push(Number::Bool(*value)),
        Value::Int32List(list) => {
            out.extend(list.val.iter().map(|&value| Number::Int(i64::from(value))))
        }
        Value::Int64List(list) | Value::UnixTimestampList(list) => {
            out.extend(list.val.iter().map(|&value| Number::Int(value)));
        }
        Value::DoubleList(list) => out.extend(list.val.iter().map(|&value| Number::Float(value))),
        Value::FloatList(list) => out.extend(
            list.val
                .iter()
                .map(|&value| Number::Float(f64::from(value))),
        ),
        Value::BoolList(list) => out.extend(list.val.iter().map(|&value| Number::Bool(value))),
        Value::Bytes(_) | Value::String(_) | Value::BytesList(_) | Value::StringList(_) => {
            return false;
        }
    }
    true
}

/// The values of one feature, one row after the other.
#[derive(Clone, Debug)]
enum Column {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bool(Vec<bool>),
}

/// Calls `$body` with `$data` bound to the column's vector.
macro_rules! each_type {
    ($column:expr, $data:ident => $body:expr) => {
        match $column {
            Column::Int32($data) => $body,
            Column::Int64($data) => $body,
            Column::Fp32($data) => $body,
            Column::Fp64($data) => $body,
            Column::Bool($data) => $body,
        }
    };
}

impl Column {
    fn new(data_type: DataType) -> Self {
        match data_type {
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::Fp32 => Self::Fp32(Vec::new()),
            DataType::Fp64 => Self::Fp64(Vec::new()),
            DataType::Bool => Self::Bool(Vec::new()),
            // The signature accepts no other type.
            _ => Self::Int32(Vec::new()),
        }
    }

    /// Appends the numbers if all of them fit the type. Otherwise appends nothing and returns `false`.
    fn push(&mut self, numbers: &[Number]) -> bool {
        each_type!(self, data => {
            let before = data.len();
            for number in numbers {
                match Fit::fit(*number) {
                    Some(value) => data.push(value),
                    None => {
                        data.truncate(before);
                        return false;
                    }
                }
            }
            true
        })
    }
}

/// Converts a number to the output's type; `None` if it does not fit.
trait Fit: Sized {
    fn fit(number: Number) -> Option<Self>;
}

impl Fit for i32 {
    fn fit(number: Number) -> Option<Self> {
        i64::fit(number)?.try_into().ok()
    }
}

impl Fit for i64 {
    fn fit(number: Number) -> Option<Self> {
        match number {
            Number::Int(value) => Some(value),
            Number::Bool(value) => Some(i64::from(value)),
            Number::Float(_) => None,
        }
    }
}

impl Fit for f32 {
    fn fit(number: Number) -> Option<Self> {
        f64::fit(number).map(|value| value as f32)
    }
}

impl Fit for f64 {
    fn fit(number: Number) -> Option<Self> {
        Some(match number {
            Number::Int(value) => value as f64,
            Number::Bool(value) => f64::from(u8::from(value)),
            Number::Float(value) => value,
        })
    }
}

impl Fit for bool {
    fn fit(number: Number) -> Option<Self> {
        match number {
            Number::Bool(value) => Some(value),
            Number::Int(0) => Some(false),
            Number::Int(1) => Some(true),
            _ => None,
        }
    }
}

/// The features of several entities, one row per entity, in the order of the features.
#[derive(Clone, Debug)]
pub struct Columns {
    columns: Vec<Column>,
    scratch: Vec<Number>,
}

impl Columns {
    /// Creates columns without rows.
    pub fn new(features: &[Feature]) -> Self {
        Self {
            columns: features
                .iter()
                .map(|feature| Column::new(feature.data_type))
                .collect(),
            scratch: Vec::new(),
        }
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        for column in &mut self.columns {
            each_type!(column, data => data.clear());
        }
    }

    /// Appends a row of defaults.
    pub fn push_defaults(&mut self, features: &[Feature]) {
        for (column, feature) in self.columns.iter_mut().zip(features) {
            column.push(&feature.default);
        }
    }

    /// Appends a row; `value` returns each feature by its index. A missing value becomes the feature's default. A value that does not fit
    /// also becomes the default, and `unreadable` receives it. Returns whether every stored value was readable; an unseen text counts as
    /// readable.
    pub fn push_row(
        &mut self,
        features: &[Feature],
        mut value: impl FnMut(usize) -> Result<Option<Value>, saker_store::StoreError>,
        mut unreadable: impl FnMut(String),
    ) -> bool {
        let mut whole = true;
        for (position, (column, feature)) in self.columns.iter_mut().zip(features).enumerate() {
            let fits = match value(position) {
                Ok(None) => false,
                Ok(Some(value)) => match feature.read(&value, &mut self.scratch) {
                    Read::Numbers => {
                        let fits = column.push(&self.scratch);
                        if !fits {
                            whole = false;
                            unreadable(feature.mismatch(&value));
                        }
                        fits
                    }
                    Read::Nothing => false,
                    Read::Unseen(why) => {
                        unreadable(why);
                        false
                    }
                    Read::Unreadable(why) => {
                        whole = false;
                        unreadable(why);
                        false
                    }
                },
                Err(error) => {
                    whole = false;
                    unreadable(format!("feature '{}': {error}", feature.name));
                    false
                }
            };
            if !fits {
                column.push(&feature.default);
            }
        }
        whole
    }

    /// Replaces the row at `row` by the last row and removes the last row. Used if an entity came twice.
    pub fn replace_with_last(&mut self, features: &[Feature], row: usize) {
        for (column, feature) in self.columns.iter_mut().zip(features) {
            let width = feature.width;
            each_type!(column, data => {
                let last = data.len().saturating_sub(width);
                data.copy_within(last.., row * width);
                data.truncate(last);
            });
        }
    }

    /// A range of one feature's rows, as input of a transform.
    pub fn slice(&self, feature: usize, rows: std::ops::Range<usize>) -> Option<Slice<'_>> {
        Some(match self.columns.get(feature)? {
            Column::Int32(data) => Slice::Int32(data.get(rows)?),
            Column::Int64(data) => Slice::Int64(data.get(rows)?),
            Column::Fp32(data) => Slice::Float32(data.get(rows)?),
            Column::Fp64(data) => Slice::Float64(data.get(rows)?),
            Column::Bool(data) => Slice::Bool(data.get(rows)?),
        })
    }

    /// Copies `count` rows from `start` to the outputs.
    ///
    /// # Errors
    /// Returns an error if Triton refuses a buffer, or if there are fewer rows.
    pub fn copy(
        &self,
        features: &[Feature],
        start: usize,
        count: usize,
        response: &Response<'_>,
        shape: &[i64],
    ) -> Result<(), Error> {
        let rows = start..start + count;
        for (column, feature) in self.columns.iter().zip(features) {
            let shape = feature.shape(shape);
            let range = rows.start * feature.width..rows.end * feature.width;
            each_type!(column, data => {
                let values = data.get(range.clone()).ok_or_else(|| {
                    Error::internal(format!(
                        "values {range:?} are out of range for feature '{}', which has {}",
                        feature.name,
                        data.len()
                    ))
                })?;
                response.write_at(feature.output, &shape, values)
            })?;
        }
        Ok(())
    }

    /// Copies the given rows to the outputs; `None` writes a row of defaults.
    ///
    /// # Errors
    /// Returns an error if Triton refuses a buffer.
    pub fn gather(
        &self,
        features: &[Feature],
        rows: &[Option<u32>],
        response: &Response<'_>,
        shape: &[i64],
    ) -> Result<(), Error> {
        for (column, feature) in self.columns.iter().zip(features) {
            let width = feature.width;
            let mut default = Column::new(feature.data_type);
            default.push(&feature.default);
            macro_rules! gather {
                ($($kind:ident),*) => {
                    match (column, &default) {
                        $((Column::$kind(data), Column::$kind(default)) => {
                            if let Some(out) = response.output_at(feature.output, &feature.shape(shape))? {
                                for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                                    let row = row.and_then(|row| {
                                        data.get(row as usize * width..(row as usize + 1) * width)
                                    });
                                    out.copy_from_slice(row.unwrap_or(default));
                                }
                            }
                        })*
                        _ => return Err(Error::internal("a column and its output have different types")),
                    }
                };
            }
            gather!(Int32, Int64, Fp32, Fp64, Bool);
        }
        Ok(())
    }
}

impl Feature {
    /// The shape of the output for ids of this shape.
    fn shape(&self, ids: &[i64]) -> Vec<i64> {
        let mut shape = ids.to_vec();
        if self.width > 1 {
            shape.push(self.width as i64);
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_store::feast::list;
    use serde_json::json;
    use triton_backend::ModelConfig;

    fn feature(
        data_type: &str,
        dims: &[i64],
        default: Option<serde_json::Value>,
    ) -> Result<Feature, Error> {
        let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
        let output = json!({ "name": "f", "data_type": data_type, "dims": dims });
        let config =
            ModelConfig::from_json(&json!({ "input": [], "output": [output] }).to_string())?;
        Feature::new(0, &config.outputs()[0], default)
    }

    /// The column after one value, and whether the value was reported as unreadable.
    fn read(feature: &Feature, value: Option<Value>) -> (Column, bool) {
        let features = std::slice::from_ref(feature);
        let mut columns = Columns::new(features);
        let mut told = false;
        columns.push_row(features, |_| Ok(value.clone()), |_| told = true);
        (columns.columns.remove(0), told)
    }

    #[test]
    fn values_take_the_outputs_type_or_the_default() {
        let int = feature("TYPE_INT32", &[-1], Some(json!(35))).expect("a feature");
        for (value, expected, unreadable) in [
            (Some(Value::Int32(-7)), -7, false),
            (Some(Value::Int64(i64::from(i32::MAX))), i32::MAX, false),
            (Some(Value::Int64(i64::from(i32::MAX) + 1)), 35, true),
            (
                Some(Value::UnixTimestamp(1_777_636_800)),
                1_777_636_800,
                false,
            ),
            (Some(Value::Bool(true)), 1, false),
            (Some(Value::Float(2.0)), 35, true),
            (Some(Value::String("7".into())), 35, true),
            (
                Some(Value::Int32List(list::Int32 { val: vec![7] })),
                7,
                false,
            ),
            (
                Some(Value::Int32List(list::Int32 { val: vec![7, 8] })),
                35,
                true,
            ),
            (None, 35, false),
        ] {
            let (column, told) = read(&int, value.clone());
            assert!(
                matches!(&column, Column::Int32(data) if data == &[expected]),
                "{value:?}: {column:?}"
            );
            assert_eq!(told, unreadable, "{value:?}");
        }
        let float = feature("TYPE_FP32", &[-1], None).expect("a feature");
        assert!(
            matches!(read(&float, Some(Value::Double(0.1))).0, Column::Fp32(data) if data == [0.1_f32])
        );
        assert!(
            matches!(read(&float, Some(Value::Int64(3))).0, Column::Fp32(data) if data == [3.0])
        );
        assert!(matches!(read(&float, None).0, Column::Fp32(data) if data == [0.0]));
        let flag = feature("TYPE_BOOL", &[-1], None).expect("a feature");
        assert!(
            matches!(read(&flag, Some(Value::Int32(1))).0, Column::Bool(data) if data == [true])
        );
        assert!(read(&flag, Some(Value::Int32(2))).1);
    }

    #[test]
    fn texts_with_a_vocabulary_are_codes() {
        let column = saker_pipeline::TextColumn {
            codes: saker_pipeline::Codes::Value,
            texts: vec!["F".into(), "M".into()],
            empty: vec!["-".into()],
        };
        let vocabulary = Some(Arc::new(Vocabulary::new(column)));
        let int = feature("TYPE_INT32", &[-1], Some(json!(35))).expect("a feature");
        let coded = int.with_vocabulary(vocabulary);
        for (value, expected, unreadable) in [
            (Value::String("M".into()), 1, false),
            (Value::String(" F ".into()), 0, false),
            (Value::String("-".into()), 35, false),
            (Value::String(String::new()), 35, false),
            (Value::String("X".into()), 35, true),
            (Value::Int64(1), 1, false),
            (Value::Bytes(b"M".to_vec()), 35, true),
        ] {
            let (column, told) = read(&coded, Some(value.clone()));
            assert!(
                matches!(column, Column::Int32(data) if data == [expected]),
                "{value:?}"
            );
            assert_eq!(told, unreadable, "{value:?}");
        }
    }

    #[test]
    fn lists_have_the_outputs_width() {
        let list = feature("TYPE_FP32", &[-1, 2], Some(json!([1, 0.5]))).expect("a feature");
        let value = |val: &[f32]| Some(Value::FloatList(list::Float { val: val.to_vec() }));
        assert!(
            matches!(read(&list, value(&[3.0, 4.0])).0, Column::Fp32(data) if data == [3.0, 4.0])
        );
        let (column, told) = read(&list, value(&[3.0]));
        assert!(told && matches!(column, Column::Fp32(data) if data == [1.0, 0.5]));
        assert!(feature("TYPE_FP32", &[-1, -1], None).is_err());
    }

    #[test]
    fn defaults_must_fit() {
        assert!(feature("TYPE_INT32", &[-1], Some(json!(0.5))).is_err());
        assert!(feature("TYPE_INT32", &[-1], Some(json!("x"))).is_err());
        assert!(feature("TYPE_INT32", &[-1], Some(json!(3_000_000_000_i64))).is_err());
        assert!(feature("TYPE_FP32", &[-1, 2], Some(json!([1, 2, 3]))).is_err());
        let every = feature("TYPE_FP32", &[-1, 3], Some(json!(2))).expect("one value for all");
        assert_eq!(every.default.len(), 3);
    }

    #[test]
    fn an_entity_that_comes_twice_has_its_last_values() {
        let features = [feature("TYPE_INT32", &[-1], None).expect("a feature")];
        let mut columns = Columns::new(&features);
        for value in [1, 2, 3] {
            columns.push_row(&features, |_| Ok(Some(Value::Int32(value))), |_| ());
        }
        columns.replace_with_last(&features, 0);
        assert!(matches!(&columns.columns[0], Column::Int32(data) if data == &[3, 2]));
    }
}
