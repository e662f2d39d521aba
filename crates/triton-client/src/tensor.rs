//! Tensors as they travel.

use crate::{Error, Result};

/// A named tensor.
///
/// ```
/// use triton_client::Tensor;
///
/// # fn main() -> triton_client::Result<()> {
/// let matrix = Tensor::float32("x", &[1.0, 2.0, 3.0, 4.0]).shaped(&[2, 2]);
/// assert_eq!(matrix.float32s()?, [1.0, 2.0, 3.0, 4.0]);
/// assert!(matrix.int32s().is_err(), "it is FP32");
///
/// let titles = Tensor::from_texts("title", &["Heat", "Alien"])?;
/// assert_eq!(titles.texts()?, ["Heat", "Alien"]);
/// # Ok(())
/// # }
/// ```
///
/// Other types, such as FP16, are made and read through the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the model's configuration.
    pub name: String,
    /// The protocol's name of the element type, such as `INT32`, `FP32` or `BYTES`.
    pub data_type: String,
    /// The length of each dimension, the batch dimension included.
    pub shape: Vec<i64>,
    /// Its elements in row order, little-endian. Each element of a `BYTES` tensor follows its length in four bytes.
    pub data: Vec<u8>,
}

macro_rules! elements {
    ($($make:ident, $read:ident, $element:ty, $data_type:literal;)*) => {
        impl Tensor {
            $(
                #[doc = concat!("A tensor of shape `[len]` and type ", $data_type, ".")]
                #[must_use]
                pub fn $make(name: &str, values: &[$element]) -> Self {
                    Self {
                        name: name.to_owned(),
                        data_type: $data_type.to_owned(),
                        shape: vec![values.len() as i64],
                        data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    }
                }

                #[doc = concat!("The elements of a tensor of type ", $data_type, ", in row order.")]
                ///
                /// # Errors
                /// Returns an error if it has another type.
                pub fn $read(&self) -> Result<Vec<$element>> {
                    let elements = self.elements($data_type)?;
                    Ok(elements.map(<$element>::from_le_bytes).collect())
                }
            )*
        }
    };
}

elements! {
    int32, int32s, i32, "INT32";
    int64, int64s, i64, "INT64";
    float32, float32s, f32, "FP32";
    float64, float64s, f64, "FP64";
}

impl Tensor {
    /// The same elements in another shape.
    #[must_use]
    pub fn shaped(mut self, shape: &[i64]) -> Self {
        self.shape = shape.to_vec();
        self
    }

    /// A tensor of shape `[len]` and type BYTES.
    ///
    /// # Errors
    /// Returns an error if a text is longer than 4 GiB.
    pub fn from_texts<T: AsRef<[u8]>>(name: &str, texts: &[T]) -> Result<Self> {
        let mut data = Vec::new();
        for text in texts {
            let text = text.as_ref();
            let length = u32::try_from(text.len())
                .map_err(|_| Error::Tensor(format!("{name} has an element of more than 4 GiB")))?;
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(text);
        }
        Ok(Self {
            name: name.to_owned(),
            data_type: "BYTES".to_owned(),
            shape: vec![texts.len() as i64],
            data,
        })
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

    fn elements<const SIZE: usize>(
        &self,
        data_type: &str,
    ) -> Result<impl Iterator<Item = [u8; SIZE]>> {
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
