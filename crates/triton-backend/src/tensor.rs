//! Input tensors: borrowed if they are in one aligned host buffer, gathered otherwise.

use std::borrow::Cow;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::{mem, ptr, slice};

use ndarray::{ArrayView, ArrayViewD, CowArray, Ix1, Ix2, IxDyn};
use triton_rs_sys as sys;

use crate::borrows::Borrows;
use crate::ffi::{check, text};
use crate::{DataType, Element, Error, gpu};

/// One input of one request.
///
/// It borrows from the request: neither it nor its elements can outlive the batch. Its creation checks that no dimension is negative, that
/// the size does not overflow, and that the number of bytes matches shape and type.
///
/// A client may place an input in shared memory and write there while its request runs. Borrowed elements may then have any values, and may
/// differ when they are read again. Copy them if a check must stay valid; BOOL and BYTES are always copied.
///
/// ```no_run
/// use triton_backend::{Error, Tensor};
///
/// /// The sum of each row of an FP32 tensor of shape `[rows, columns]`.
/// fn sums(tensor: &Tensor<'_>) -> Result<Vec<f32>, Error> {
///     let matrix = tensor.rows::<f32>()?;
///     Ok(matrix.rows().into_iter().map(|row| row.sum()).collect())
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'r> {
    raw: *mut sys::TRITONBACKEND_Input,
    borrows: &'r Borrows,
    name: &'r str,
    data_type: DataType,
    shape: &'r [i64],
    len: usize,
    byte_size: usize,
    buffer_count: u32,
}

/// One of the buffers of a tensor.
struct Buffer {
    data: *const u8,
    byte_size: usize,
    memory_type: sys::TRITONSERVER_MemoryType,
    memory_type_id: i64,
}

impl<'r> Tensor<'r> {
    /// # Safety
    /// `raw` is an input of a request that is not released during `'r`.
    pub(crate) unsafe fn new(
        raw: *mut sys::TRITONBACKEND_Input,
        borrows: &'r Borrows,
    ) -> Result<Self, Error> {
        let (mut name, mut data_type, mut shape) = (ptr::null(), 0, ptr::null());
        let (mut dims_count, mut byte_size, mut buffer_count) = (0, 0, 0);
        // SAFETY: `raw` is alive; every out-pointer is valid. The request owns name and shape
        // and keeps them until it is released, after 'r.
        let (name, shape) = unsafe {
            check(sys::TRITONBACKEND_InputProperties(
                raw,
                &mut name,
                &mut data_type,
                &mut shape,
                &mut dims_count,
                &mut byte_size,
                &mut buffer_count,
            ))?;
            let name = match text(name) {
                Cow::Borrowed(name) => name,
                Cow::Owned(_) => {
                    return Err(Error::invalid_argument("a tensor's name is not UTF-8"));
                }
            };
            let shape = match dims_count {
                0 => &[][..],
                n => slice::from_raw_parts(shape, n as usize),
            };
            (name, shape)
        };
        let data_type = DataType::from_raw(data_type).ok_or_else(|| {
            Error::unsupported(format!(
                "tensor '{name}' has the unknown data type {data_type} of Triton"
            ))
        })?;
        let len = element_count(name, shape)?;
        let byte_size = usize::try_from(byte_size)
            .map_err(|_| Error::invalid_argument(format!("tensor '{name}' is too large")))?;
        if let Some(size) = data_type.size()
            && len.checked_mul(size) != Some(byte_size)
        {
            return Err(Error::invalid_argument(format!(
                "tensor '{name}' holds {byte_size} bytes; {data_type} of shape {shape:?} takes {} bytes",
                len.saturating_mul(size)
            )));
        }
        Ok(Self {
            raw,
            borrows,
            name,
            data_type,
            shape,
            len,
            byte_size,
            buffer_count,
        })
    }

    /// The name, as config.pbtxt declares it.
    pub fn name(&self) -> &'r str {
        self.name
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The dimensions, including the batch dimension if the model has one.
    pub fn shape(&self) -> &'r [i64] {
        self.shape
    }

    /// Number of elements: the product of the dimensions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in row-major order. They are borrowed if one aligned host buffer holds them, and copied if they are BOOLs.
    ///
    /// ```no_run
    /// # fn largest(tensor: &triton_backend::Tensor<'_>) -> Result<Option<i64>, triton_backend::Error> {
    /// let ids = tensor.as_slice::<i64>()?;
    /// Ok(ids.iter().copied().max())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if `T` is not the tensor's type, or if a BOOL is neither 0 nor 1. It also returns an error if the client has placed
    /// the tensor in the memory of an output that is being written.
    pub fn as_slice<T: Element>(&self) -> Result<Cow<'r, [T]>, Error> {
        if T::DATA_TYPE != self.data_type {
            return Err(self.wrong(format_args!(
                "is {}; accepted: {}",
                self.data_type,
                T::DATA_TYPE
            )));
        }
        if self.len == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if !T::ANY_BITS {
            return self.checked_bools();
        }
        if let Some(buffer) = self.only_buffer()?
            && buffer.data.cast::<T>().is_aligned()
        {
            self.borrow(&buffer)?;
            // SAFETY: a host buffer of exactly len * size_of::<T>() bytes (checked in `new` and
            // `only_buffer`), aligned, any bits valid, alive until the request is released, which is
            // after 'r; no output that this batch writes lies there (checked in `borrow`).
            return Ok(Cow::Borrowed(unsafe {
                slice::from_raw_parts(buffer.data.cast(), self.len)
            }));
        }
        let mut gathered: Vec<T> = Vec::with_capacity(self.len);
        // SAFETY: room for byte_size = len * size_of::<T>() bytes, all written by a gather that
        // succeeds; any bits are a T.
        unsafe {
            self.gather(gathered.as_mut_ptr().cast())?;
            gathered.set_len(self.len);
        }
        Ok(Cow::Owned(gathered))
    }

    /// The elements of a tensor of rank 1, `[len]`.
    ///
    /// # Errors
    /// Returns an error as [`as_slice`](Self::as_slice) does, or if the rank is not 1.
    pub fn vector<T: Element>(&self) -> Result<Cow<'r, [T]>, Error> {
        self.dims::<1>()?;
        self.as_slice()
    }

    /// The elements as an array of the tensor's shape.
    ///
    /// # Errors
    /// Returns an error as [`as_slice`](Self::as_slice) does.
    pub fn view<T: Element>(&self) -> Result<CowArray<'r, T, IxDyn>, Error> {
        let shape: Vec<usize> = self.shape.iter().map(|&d| d as usize).collect();
        match self.as_slice::<T>()? {
            Cow::Borrowed(elements) => ArrayViewD::from_shape(shape, elements).map(CowArray::from),
            Cow::Owned(elements) => {
                ndarray::ArrayD::from_shape_vec(shape, elements).map(CowArray::from)
            }
        }
        .map_err(|e| self.wrong(format_args!("does not fit its shape: {e}")))
    }

    /// The elements of a tensor of rank 2, `[rows, columns]`.
    ///
    /// # Errors
    /// Returns an error as [`as_slice`](Self::as_slice) does, or if the rank is not 2.
    pub fn rows<T: Element>(&self) -> Result<CowArray<'r, T, Ix2>, Error> {
        let &[rows, columns] = self.dims()?;
        let shape = (rows as usize, columns as usize);
        match self.as_slice::<T>()? {
            Cow::Borrowed(elements) => ArrayView::from_shape(shape, elements).map(CowArray::from),
            Cow::Owned(elements) => {
                ndarray::Array2::from_shape_vec(shape, elements).map(CowArray::from)
            }
        }
        .map_err(|e| self.wrong(format_args!("does not fit its shape: {e}")))
    }

    /// The elements of a tensor of rank 1 as an array.
    ///
    /// # Errors
    /// Returns an error as [`vector`](Self::vector) does.
    pub fn array<T: Element>(&self) -> Result<CowArray<'r, T, Ix1>, Error> {
        Ok(match self.vector::<T>()? {
            Cow::Borrowed(elements) => CowArray::from(ndarray::ArrayView1::from(elements)),
            Cow::Owned(elements) => CowArray::from(ndarray::Array1::from(elements)),
        })
    }

    /// The elements of a BYTES tensor, copied.
    ///
    /// # Errors
    /// Returns an error if the type is not BYTES, if a length exceeds the tensor's bytes, or if the number of elements does not match the
    /// shape.
    pub fn strings(&self) -> Result<Strings, Error> {
        if self.data_type != DataType::Bytes {
            return Err(self.wrong(format_args!("is {}; accepted: BYTES", self.data_type)));
        }
        let data = self.copied()?;
        let mut elements = Elements {
            rest: &data,
            least: 0,
        };
        let count = elements.by_ref().count();
        if !elements.rest.is_empty() {
            return Err(self.wrong(format_args!(
                "element {count} reaches beyond the tensor's {} bytes",
                data.len()
            )));
        }
        if count != self.len {
            return Err(self.wrong(format_args!(
                "holds {count} BYTES elements; shape {:?} takes {}",
                self.shape, self.len
            )));
        }
        Ok(Strings { data, len: count })
    }

    /// The unparsed bytes; borrowed if one host buffer holds them.
    ///
    /// # Errors
    /// Returns an error if the bytes cannot be read.
    pub fn raw(&self) -> Result<Cow<'r, [u8]>, Error> {
        if self.byte_size == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if let Some(buffer) = self.only_buffer()? {
            self.borrow(&buffer)?;
            // SAFETY: as in `as_slice`; bytes have no alignment.
            return Ok(Cow::Borrowed(unsafe {
                slice::from_raw_parts(buffer.data, self.byte_size)
            }));
        }
        self.copied().map(Cow::Owned)
    }

    /// A copy of the bytes, for data that is checked once and used later. A client that shares memory with the server may change the
    /// original in between.
    fn copied(&self) -> Result<Vec<u8>, Error> {
        let mut gathered = Vec::with_capacity(self.byte_size);
        // SAFETY: room for byte_size bytes, all written by a gather that succeeds.
        unsafe {
            self.gather(gathered.as_mut_ptr())?;
            gathered.set_len(self.byte_size);
        }
        Ok(gathered)
    }

    /// The dimensions of a tensor of rank `N`.
    fn dims<const N: usize>(&self) -> Result<&'r [i64; N], Error> {
        self.shape.try_into().map_err(|_| {
            self.wrong(format_args!(
                "has shape {:?}; accepted: {N} dimension(s)",
                self.shape
            ))
        })
    }

    fn wrong(&self, what: std::fmt::Arguments<'_>) -> Error {
        Error::invalid_argument(format!("tensor '{}' {what}", self.name))
    }

    fn checked_bools<T: Element>(&self) -> Result<Cow<'r, [T]>, Error> {
        debug_assert_eq!(mem::size_of::<T>(), 1);
        let bytes = self.copied()?;
        if let Some((at, byte)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1) {
            return Err(self.wrong(format_args!(
                "holds {byte} at element {at}; accepted: 0 or 1"
            )));
        }
        let mut bytes = ManuallyDrop::new(bytes);
        // SAFETY: the parts of a vector that is not dropped; a bool has a byte's size and alignment, and each byte is 0 or 1.
        Ok(Cow::Owned(unsafe {
            Vec::from_raw_parts(bytes.as_mut_ptr().cast(), bytes.len(), bytes.capacity())
        }))
    }

    /// Records that a buffer is borrowed.
    fn borrow(&self, buffer: &Buffer) -> Result<(), Error> {
        if self.borrows.read(buffer.data, self.byte_size) {
            return Ok(());
        }
        Err(self.overwritten())
    }

    fn overwritten(&self) -> Error {
        self.wrong(format_args!(
            "overlaps an output of the client that is being written; accepted: memory of its own"
        ))
    }

    /// The single host buffer that holds all bytes, if there is one.
    fn only_buffer(&self) -> Result<Option<Buffer>, Error> {
        if self.buffer_count != 1 {
            return Ok(None);
        }
        let buffer = self.buffer(0)?;
        let host = buffer.memory_type != sys::TRITONSERVER_MEMORY_GPU;
        Ok(
            (host && !buffer.data.is_null() && buffer.byte_size == self.byte_size)
                .then_some(buffer),
        )
    }

    fn buffer(&self, index: u32) -> Result<Buffer, Error> {
        let mut data: *const c_void = ptr::null();
        // Requests host memory; Triton returns the actual type.
        let (mut byte_size, mut memory_type, mut memory_type_id) =
            (0, sys::TRITONSERVER_MEMORY_CPU, 0);
        // SAFETY: the input is alive and every out-pointer is valid.
        unsafe {
            check(sys::TRITONBACKEND_InputBuffer(
                self.raw,
                index,
                &mut data,
                &mut byte_size,
                &mut memory_type,
                &mut memory_type_id,
            ))?;
        }
        let byte_size =
            usize::try_from(byte_size).map_err(|_| self.wrong(format_args!("is too large")))?;
        Ok(Buffer {
            data: data.cast(),
            byte_size,
            memory_type,
            memory_type_id,
        })
    }

    /// Copies all buffers, one after the other, to `to`.
    ///
    /// # Safety
    /// `to` has room for `byte_size` bytes.
    unsafe fn gather(&self, to: *mut u8) -> Result<(), Error> {
        let mut at = 0;
        for index in 0..self.buffer_count {
            let buffer = self.buffer(index)?;
            if buffer.byte_size == 0 {
                continue;
            }
            if buffer.byte_size > self.byte_size - at || buffer.data.is_null() {
                return Err(self.size_mismatch());
            }
            let host = buffer.memory_type != sys::TRITONSERVER_MEMORY_GPU;
            if host && self.borrows.is_written(buffer.data, buffer.byte_size) {
                return Err(self.overwritten());
            }
            // SAFETY: the source holds byte_size bytes; the target has room for them behind
            // `at`, checked above; both are apart, since the target is our own allocation.
            unsafe {
                if buffer.memory_type == sys::TRITONSERVER_MEMORY_GPU {
                    gpu::copy_to_host(
                        to.add(at),
                        buffer.data,
                        buffer.byte_size,
                        buffer.memory_type_id,
                    )
                    .map_err(|e| e.context(format_args!("tensor '{}'", self.name)))?;
                } else {
                    ptr::copy_nonoverlapping(buffer.data, to.add(at), buffer.byte_size);
                }
            }
            at += buffer.byte_size;
        }
        if at == self.byte_size {
            Ok(())
        } else {
            Err(self.size_mismatch())
        }
    }

    fn size_mismatch(&self) -> Error {
        self.wrong(format_args!(
            "comes in buffers that do not add up to its {} bytes",
            self.byte_size
        ))
    }
}

fn element_count(name: &str, shape: &[i64]) -> Result<usize, Error> {
    let mut count = 1usize;
    for &dim in shape {
        let dim = usize::try_from(dim).ok();
        count = dim.and_then(|dim| count.checked_mul(dim)).ok_or_else(|| {
            Error::invalid_argument(format!(
                "tensor '{name}' has the impossible shape {shape:?}"
            ))
        })?;
    }
    Ok(count)
}

/// The elements of a BYTES tensor.
///
/// ```no_run
/// # fn read(tensor: &triton_backend::Tensor<'_>) -> Result<(), triton_backend::Error> {
/// let names = tensor.strings()?;
/// for name in names.iter() {
///     println!("{}", String::from_utf8_lossy(name));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Strings {
    /// `len` elements, each after its length.
    data: Vec<u8>,
    len: usize,
}

impl Strings {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All elements in row-major order, without their lengths. They need not be UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        Elements {
            rest: &self.data,
            least: self.len,
        }
    }
}

/// Splits bytes into BYTES elements. It stops at the first incomplete element; `rest` starts there.
struct Elements<'d> {
    rest: &'d [u8],
    /// Minimum number of remaining elements.
    least: usize,
}

impl<'d> Iterator for Elements<'d> {
    type Item = &'d [u8];

    fn next(&mut self) -> Option<&'d [u8]> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        self.least = self.least.saturating_sub(1);
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.least, None)
    }
}
