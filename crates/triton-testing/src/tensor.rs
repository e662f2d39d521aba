//! Tensors as they travel in a request of the KServe v2 protocol.

/// A named tensor: the data in row order, little-endian, as the protocol's binary form wants it.
///
/// Nothing here checks that `shape` and `data` agree: tests send what is wrong, too.
///
/// ```
/// use triton_testing::tensor::Tensor;
///
/// let matrix = Tensor::f32("x", &[1.0, 2.0, 3.0, 4.0]).shaped(&[2, 2]);
/// assert_eq!(matrix.to_f32(), [1.0, 2.0, 3.0, 4.0]);
/// let cut = Tensor::raw("name", "BYTES", &[1], vec![9, 0, 0, 0, b'a']);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor's name in the model's configuration.
    pub name: String,
    /// The protocol's name of the element type, such as `INT32` or `FP32`.
    pub data_type: String,
    /// The length of each dimension.
    pub shape: Vec<i64>,
    /// The elements' bytes; `BYTES` elements have their length in four bytes before them.
    pub data: Vec<u8>,
}

macro_rules! elements {
    ($($make:ident, $read:ident, $element:ty, $data_type:literal;)*) => {
        impl Tensor {
            $(
                #[doc = concat!("A rank-1 `", $data_type, "` tensor.")]
                #[must_use]
                pub fn $make(name: &str, values: &[$element]) -> Self {
                    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    Self::raw(name, $data_type, &[values.len() as i64], data)
                }

                #[doc = concat!("The elements, when the tensor is `", $data_type, "`.")]
                ///
                /// # Panics
                /// Panics if the tensor has another type.
                #[must_use]
                pub fn $read(&self) -> Vec<$element> {
                    assert_eq!(self.data_type, $data_type, "type of tensor '{}'", self.name);
                    self.data
                        .chunks_exact(size_of::<$element>())
                        .map(|bytes| <$element>::from_le_bytes(bytes.try_into().unwrap_or_default()))
                        .collect()
                }
            )*
        }
    };
}

elements! {
    i32, to_i32, i32, "INT32";
    i64, to_i64, i64, "INT64";
    u8, to_u8, u8, "UINT8";
    f32, to_f32, f32, "FP32";
    f64, to_f64, f64, "FP64";
}

impl From<Tensor> for triton_client::Tensor {
    fn from(tensor: Tensor) -> Self {
        Self {
            name: tensor.name,
            data_type: tensor.data_type,
            shape: tensor.shape,
            data: tensor.data,
        }
    }
}

impl From<triton_client::Tensor> for Tensor {
    fn from(tensor: triton_client::Tensor) -> Self {
        Self {
            name: tensor.name,
            data_type: tensor.data_type,
            shape: tensor.shape,
            data: tensor.data,
        }
    }
}

impl Tensor {
    /// A tensor of any type from its bytes.
    #[must_use]
    pub fn raw(name: &str, data_type: &str, shape: &[i64], data: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            shape: shape.to_vec(),
            data,
        }
    }

    /// A rank-1 `BYTES` tensor.
    #[must_use]
    pub fn bytes(name: &str, values: &[&[u8]]) -> Self {
        let mut data = Vec::new();
        for value in values {
            data.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            data.extend_from_slice(value);
        }
        Self::raw(name, "BYTES", &[values.len() as i64], data)
    }

    /// The same elements under another shape.
    #[must_use]
    pub fn shaped(mut self, shape: &[i64]) -> Self {
        self.shape = shape.to_vec();
        self
    }
}
