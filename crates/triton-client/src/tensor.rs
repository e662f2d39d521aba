//! Tensors as they travel.

use crate::{Error, Result};

/// A named tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// `INT32` or another of Triton's names.
    pub data_type: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, little-endian. Each element of a `BYTES` tensor follows its length in four bytes.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A column of integers.
    pub fn int32(name: &str, values: &[i32]) -> Self {
        Self {
            name: name.to_owned(),
            data_type: "INT32".to_owned(),
            shape: vec![values.len() as i64],
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    /// The elements of an INT32 tensor.
    ///
    /// # Errors
    /// Returns an error if it has another type.
    pub fn int32s(&self) -> Result<Vec<i32>> {
        self.elements("INT32")
            .map(|elements| elements.map(i32::from_le_bytes).collect())
    }

    /// The elements of an FP32 tensor.
    ///
    /// # Errors
    /// Returns an error if it has another type.
    pub fn float32s(&self) -> Result<Vec<f32>> {
        self.elements("FP32")
            .map(|elements| elements.map(f32::from_le_bytes).collect())
    }

    /// The elements of a BYTES tensor, as text.
    ///
    /// # Errors
    /// Returns an error if it has another type, or its lengths do not add up.
    pub fn texts(&self) -> Result<Vec<String>> {
        if self.data_type != "BYTES" {
            return Err(Error::Tensor(format!(
                "{} is {}, expected BYTES",
                self.name, self.data_type
            )));
        }
        let cut = || Error::Tensor(format!("{} ends within an element", self.name));
        let mut texts = Vec::new();
        let mut rest = self.data.as_slice();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (text, after) = after.split_at_checked(length).ok_or_else(cut)?;
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = after;
        }
        Ok(texts)
    }

    fn elements(&self, data_type: &str) -> Result<impl Iterator<Item = [u8; 4]>> {
        match self.data.as_chunks() {
            (elements, []) if self.data_type == data_type => Ok(elements.iter().copied()),
            _ => Err(Error::Tensor(format!(
                "{} is {} of {} bytes, expected {data_type}",
                self.name,
                self.data_type,
                self.data.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_lengths() {
        let tensor = |data: &[u8]| Tensor {
            name: "release".to_owned(),
            data_type: "BYTES".to_owned(),
            shape: vec![1],
            data: data.to_vec(),
        };
        let texts = tensor(b"\x02\0\0\0ab\0\0\0\0").texts().unwrap();
        assert_eq!(texts, ["ab", ""]);
        assert!(tensor(b"\x03\0\0\0ab").texts().is_err());
        assert!(tensor(b"\x03\0\0").texts().is_err());
    }
}
