//! Fills in values that are missing from a request. Used by `request_defaults` and the fused step.
//!
//! This module computes the length of the outputs and their content.

use std::collections::BTreeMap;

use saker_contract::ids::UNKNOWN;
use triton_backend::{Error, Request};

/// The value of a tensor that is missing from the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// This number.
    Value(f64),
    /// The server's time in Unix seconds; it also replaces a 0 in the request.
    Now,
}

impl Default {
    /// For a tensor that no parameter gives a default.
    pub const UNKNOWN: Self = Self::Value(UNKNOWN as f64);
}

/// Reads the defaults in the parameter of this name: a JSON object from tensor name to a number or `"now"`.
///
/// # Errors
///
/// Returns an error if `text` is not such an object.
pub fn parse(parameter: &str, text: Option<&str>) -> Result<BTreeMap<String, Default>, Error> {
    let Some(text) = text else {
        return Ok(BTreeMap::new());
    };
    let wrong = |what: String| {
        Error::invalid_argument(format!(
            "parameter '{parameter}' is '{text}': {what}; accepted: a JSON object of tensor names and numbers or \"now\", such as {{\"device_type\": -1, \"timestamp\": \"now\"}}"
        ))
    };
    let json: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    json.into_iter()
        .map(|(name, value)| match (value.as_f64(), value.as_str()) {
            (Some(number), _) => Ok((name, Default::Value(number))),
            (_, Some("now")) => Ok((name, Default::Now)),
            _ => Err(wrong(format!("'{name}' is {value}"))),
        })
        .collect()
}

/// An element type that a default can be written as.
pub trait Number: Copy + PartialEq + std::default::Default {
    /// The number as this type; out of its range, the nearest value in it.
    fn from_f64(number: f64) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            fn from_f64(number: f64) -> Self {
                number as $number
            }
        }
    )*};
}
numbers!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

/// Returns the length of all outputs for a request, whose tensors are given by name and position in config.pbtxt.
///
/// `users` is the number of users in the request, where it is known.
///
/// # Errors
///
/// Returns an error if a tensor does not have one dimension, if its length is neither 1 nor that of the longest, or if that is
/// neither 1 nor `users`.
pub fn rows<'t>(
    request: &Request<'_>,
    users: Option<usize>,
    tensors: impl Iterator<Item = (&'t str, usize)> + Clone,
) -> Result<usize, Error> {
    let mut given = Vec::with_capacity(tensors.size_hint().0);
    for (name, position) in tensors.clone() {
        let input = request.input_at(position)?;
        if let Some(input) = &input
            && input.shape().len() != 1
        {
            return Err(Error::invalid_argument(format!(
                "tensor '{name}' has shape {:?}; accepted: 1 dimension",
                input.shape()
            )));
        }
        given.push(input.map(|input| input.len()));
    }
    let name = |place: usize| tensors.clone().nth(place).map_or("", |(name, _)| name);
    let rows = length(&given).map_err(|place| {
        Error::invalid_argument(format!(
            "tensor '{}' has {} elements; accepted: 1, or as many as the longest tensor of the request, {}",
            name(place),
            given.get(place).copied().flatten().unwrap_or(0),
            given.iter().flatten().max().unwrap_or(&1),
        ))
    })?;
    match users {
        Some(users) if rows != 1 && rows != users => {
            let longest = given.iter().position(|len| *len == Some(rows));
            Err(Error::invalid_argument(format!(
                "tensor '{}' has {rows} elements for {users} users; accepted: 1, or one for each user",
                longest.map_or("", name),
            )))
        }
        _ => Ok(rows),
    }
}

/// The length of all outputs: that of the longest given input, or 1 without inputs.
///
/// # Errors
///
/// Returns the index of an input whose length is neither 1 nor that length.
fn length(given: &[Option<usize>]) -> Result<usize, usize> {
    let longest = given.iter().flatten().copied().max().unwrap_or(1);
    match given
        .iter()
        .position(|len| len.is_some_and(|len| len != 1 && len != longest))
    {
        Some(position) => Err(position),
        None => Ok(longest),
    }
}

/// Writes one tensor: the given values (a single value applies to all rows), or the default.
///
/// # Shapes
///
/// `given` is `[1]` or as long as `output`.
pub fn fill<T: Number>(output: &mut [T], given: Option<&[T]>, default: Default, now_s: u64) {
    let default_value = match default {
        Default::Value(number) => T::from_f64(number),
        Default::Now => T::from_f64(now_s as f64),
    };
    match given {
        Some([only]) => output.fill(*only),
        Some(given) => output.copy_from_slice(given),
        None => output.fill(default_value),
    }
    if default == Default::Now {
        for value in output.iter_mut().filter(|value| **value == T::default()) {
            *value = default_value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_that_of_the_longest_given() {
        assert_eq!(length(&[None, None]), Ok(1));
        assert_eq!(length(&[Some(1), None]), Ok(1));
        assert_eq!(length(&[None, Some(3)]), Ok(3));
        assert_eq!(length(&[Some(1), Some(3)]), Ok(3));
        assert_eq!(length(&[Some(0), None]), Ok(0));
        assert_eq!(length(&[Some(3), Some(2)]), Err(1));
        assert_eq!(length(&[Some(0), Some(2)]), Err(0));
    }

    #[test]
    fn given_values_win_and_now_replaces_zero() {
        let mut output = [0i32; 3];
        fill(&mut output, None, Default::Value(-1.0), 99);
        assert_eq!(output, [-1; 3]);
        fill(&mut output, Some(&[4]), Default::Value(-1.0), 99);
        assert_eq!(output, [4; 3]);
        fill(&mut output, Some(&[5, 0, -7]), Default::Value(-1.0), 99);
        assert_eq!(output, [5, 0, -7]);
        fill(&mut output, Some(&[5, 0, -7]), Default::Now, 99);
        assert_eq!(output, [5, 99, -7]);
        fill(&mut output, None, Default::Now, 99);
        assert_eq!(output, [99; 3]);
        fill(&mut output, None, Default::Now, u64::MAX);
        assert_eq!(output, [i32::MAX; 3]);
    }
}
