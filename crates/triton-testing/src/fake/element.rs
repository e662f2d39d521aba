//! Rust types that can fill a tensor of a test.

use triton_rs_sys as sys;

/// A Rust type that is an element of a test tensor. BYTES are made by [`Input::strings`](super::Input::strings).
pub trait Element: Copy + 'static {
    /// Triton's data type.
    const DATA_TYPE: u32;
    /// Appends its bytes.
    fn put(self, bytes: &mut Vec<u8>);
    /// Reads it back from as many bytes as it takes.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($rust:ty => $data_type:ident),* $(,)?) => {$(
        impl Element for $rust {
            const DATA_TYPE: u32 = sys::$data_type;
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_ne_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("as many bytes as the type has"))
            }
        }
    )*};
}

elements! {
    u8 => TRITONSERVER_TYPE_UINT8, u16 => TRITONSERVER_TYPE_UINT16,
    u32 => TRITONSERVER_TYPE_UINT32, u64 => TRITONSERVER_TYPE_UINT64,
    i8 => TRITONSERVER_TYPE_INT8, i16 => TRITONSERVER_TYPE_INT16,
    i32 => TRITONSERVER_TYPE_INT32, i64 => TRITONSERVER_TYPE_INT64,
    f32 => TRITONSERVER_TYPE_FP32, f64 => TRITONSERVER_TYPE_FP64,
}

impl Element for bool {
    const DATA_TYPE: u32 = sys::TRITONSERVER_TYPE_BOOL;
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }
    fn get(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}
