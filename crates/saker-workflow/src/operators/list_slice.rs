//! ListSlice: a part of each list.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

use super::transform::{Context, OutputKind, Transform, each};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::ingest::Ingested;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::Variable;

/// Elements `start..end` of each list, Python slicing; with one positive number, the first that many. List column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSlice {
    /// First element; negative counts from the end.
    pub start: i64,
    /// One past the last element; negative counts from the end; absent: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// Fills short lists at their end to the slice's greatest length.
    #[serde(default)]
    pub pad: bool,
    /// What fills them.
    #[serde(default)]
    pub pad_value: f64,
}

impl Transform for ListSlice {
    fn validate(&self, _: &[String]) -> Result<(), String> {
        if self.pad && self.length().is_none() {
            return Err(
                "pad needs a slice of limited length: give end, or a negative start".to_owned(),
            );
        }
        Ok(())
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    /// The type of a sliced column. `apply_to_lists` slices it: a program keeps the number of values.
    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        each(columns, |column| {
            column.require(column.list, "lists")?;
            Ok(column.clone())
        })
    }

    #[cfg(feature = "tables")]
    fn apply_to_lists(&self, columns: &[Ingested]) -> Result<Option<Vec<Ingested>>, Error> {
        let columns = columns.iter().map(|column| self.slice(column));
        columns.collect::<Result<_, Error>>().map(Some)
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["ListSlice"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        node.each(|_| {
            Ok(Self {
                start: node.param("start")?,
                // NVTabular's greatest number stands for the list's end.
                end: (node.param::<Option<i64>>("end")?).filter(|&end| end != i64::MAX),
                pad: node.param("pad")?,
                pad_value: node.param("pad_value")?,
            })
        })
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        let Self {
            start,
            end,
            pad,
            pad_value,
        } = self;
        let params = json!({ "start": start, "end": end, "pad": pad, "pad_value": pad_value });
        Ok(Form::new("nvtabular.ops.list_slice.ListSlice").params(params))
    }
}

impl ListSlice {
    /// Start and end in Python's terms: one positive number alone means the first that many.
    fn bounds(&self) -> (i64, i64) {
        match self.end {
            None if self.start > 0 => (0, self.start),
            None => (self.start, i64::MAX),
            Some(end) => (self.start, end),
        }
    }

    /// The greatest length of a slice, where there is one.
    fn length(&self) -> Option<usize> {
        let (start, end) = self.bounds();
        let length = match (start < 0, end < 0) {
            (true, true) => end.saturating_sub(start),
            (true, false) => start.saturating_neg(),
            (false, false) if end != i64::MAX => end - start,
            _ => return None,
        };
        usize::try_from(length.max(0)).ok()
    }

    #[cfg(feature = "tables")]
    fn slice(&self, column: &Ingested) -> Result<Ingested, Error> {
        use std::sync::Arc;

        use arrow::array::{Array, ArrayRef, Float64Array, ListArray, UInt64Array};
        use arrow::buffer::OffsetBuffer;
        use arrow::compute::{concat, take};
        use arrow::datatypes::Field;

        let Some((offsets, nulls)) = &column.lists else {
            return Err(Error::types(&column.name, column.type_name(), "lists"));
        };
        let arrow_error = |error| Error::Value {
            column: column.name.clone(),
            value: "a list".to_owned(),
            accepted: format!("lists that can be cut ({error})"),
        };
        let length = self.length();
        let (start, end) = self.bounds();
        let mut elements = Arc::clone(&column.elements);
        let padding = elements.len() as u64;
        if self.pad {
            let value: ArrayRef = Arc::new(Float64Array::from(vec![self.pad_value]));
            let value = crate::ingest::convert(&column.name, &value, elements.data_type())?;
            elements = concat(&[&elements, &value]).map_err(arrow_error)?;
        }
        let mut indices = Vec::new();
        let mut lengths = Vec::with_capacity(offsets.len());
        for (&first, size) in offsets.iter().zip(offsets.lengths()) {
            let (first, size) = (i64::from(first), size as i64);
            let clamp = |at: i64| {
                if at < 0 {
                    (size + at).max(0)
                } else {
                    at.min(size)
                }
            };
            let (from, to) = (clamp(start), clamp(end));
            let before = indices.len();
            indices.extend((from..to).map(|at| (first + at) as u64));
            if self.pad {
                indices.resize((before + length.unwrap_or(0)).max(indices.len()), padding);
            }
            lengths.push(indices.len() - before);
        }
        let elements = take(&elements, &UInt64Array::from(indices), None).map_err(arrow_error)?;
        let lists: ArrayRef = Arc::new(ListArray::new(
            Arc::new(Field::new("item", elements.data_type().clone(), true)),
            OffsetBuffer::from_lengths(lengths),
            elements,
            nulls.clone(),
        ));
        Ingested::new(&column.name, &lists)
    }
}

#[cfg(test)]
mod tests {
    use super::ListSlice;

    #[test]
    fn the_length_of_a_slice_is_known_where_it_is_limited() {
        let length = |start, end| {
            let slice = ListSlice {
                start,
                end,
                pad: false,
                pad_value: 0.0,
            };
            slice.length()
        };
        assert_eq!(length(3, None), Some(3));
        assert_eq!(length(-3, None), Some(3));
        assert_eq!(length(0, None), None);
        assert_eq!(length(1, Some(4)), Some(3));
        assert_eq!(length(-4, Some(-1)), Some(3));
        assert_eq!(length(4, Some(1)), Some(0));
        assert_eq!(length(0, Some(-1)), None);
    }
}
