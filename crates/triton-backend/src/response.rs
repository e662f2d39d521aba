//! The answer to one request.

use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::{iter, mem, ptr, slice};

use smallvec::SmallVec;
use triton_rs_sys as sys;

use crate::borrows::Borrows;
use crate::buffer::HostBuffer;
use crate::config::{TensorConfig, tensor_names};
use crate::ffi::{c_string, check};
use crate::{DataType, Element, Error, ModelContext, Request, gpu};

/// The response parameter that names the release.
const RELEASE: &CStr = c"release";

/// The answer to one request while its outputs are being written.
/// Outputs are Triton's own buffers, written in place. An output that the client did not request is `None`: skip its computation.
///
/// ```no_run
/// use triton_backend::{Error, Response};
///
/// fn answer(response: &Response<'_>, scores: &[f32], titles: &[String]) -> Result<(), Error> {
///     let shape = [scores.len() as i64];
///     response.write("scores", &shape, scores)?;
///     if let Some(ranks) = response.output::<i32>("ranks", &shape)? {
///         ranks.iter_mut().zip(1..).for_each(|(rank, number)| *rank = number);
///     }
///     response.write_strings("titles", &shape, titles)?;
///     response.parameter("model", "popularity")
/// }
/// ```
#[derive(Debug)]
pub struct Response<'r> {
    raw: *mut sys::TRITONBACKEND_Response,
    context: &'r ModelContext,
    /// One entry per output of the config.
    outputs: RefCell<SmallVec<[Progress; 32]>>,
    /// Whether the client requested the release as a tensor.
    wants_release: bool,
    staged: RefCell<Vec<Staged>>,
    borrows: &'r Borrows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotRequested,
    Requested,
    Written,
}

/// An output whose buffer cannot be written in place: it is on a GPU, unaligned, or overlaps an input or another output of the client.
#[derive(Debug)]
struct Staged {
    host: HostBuffer,
    to: *mut u8,
    memory_type: sys::TRITONSERVER_MemoryType,
    memory_type_id: i64,
}

impl<'r> Response<'r> {
    /// # Safety
    /// `raw` is an open response of `request`, which stays open during `'r`.
    pub(crate) unsafe fn new(
        raw: *mut sys::TRITONBACKEND_Response,
        request: &Request<'_>,
        context: &'r ModelContext,
        borrows: &'r Borrows,
    ) -> Self {
        let outputs = context.config().outputs();
        let mut progress: SmallVec<[Progress; 32]> =
            SmallVec::from_elem(Progress::NotRequested, outputs.len());
        let release = context.config().release_output();
        let mut wants_release = false;
        for name in request.requested() {
            let named = |output: &TensorConfig| output.c_name.as_c_str() == name;
            match iter::zip(outputs, &mut progress).find(|(output, _)| named(output)) {
                Some((_, progress)) => *progress = Progress::Requested,
                None => wants_release |= release.is_some_and(named),
            }
        }
        Self {
            raw,
            context,
            outputs: RefCell::new(progress),
            wants_release,
            staged: RefCell::default(),
            borrows,
        }
    }

    /// The output buffer of this name, to be written in place; `None` if the client did not request it.
    ///
    /// `shape` is in elements and includes the batch dimension if the model has one. The elements are initially zero.
    ///
    /// # Errors
    /// Returns an error if the config declares no such output or another type, if the shape is negative or overflows, if the output was
    /// taken before, or if Triton has no memory.
    #[allow(
        clippy::mut_from_ref,
        reason = "each output is handed out once, see `Progress`"
    )]
    pub fn output<T: Element>(&self, name: &str, shape: &[i64]) -> Result<Option<&mut [T]>, Error> {
        self.output_at(self.index(name)?, shape)
    }

    /// The output at this index of [`ModelConfig::outputs`](crate::ModelConfig::outputs); otherwise like [`output`](Self::output).
    ///
    /// # Errors
    /// Returns an error as [`output`](Self::output) does.
    #[allow(
        clippy::mut_from_ref,
        reason = "each output is handed out once, see `Progress`"
    )]
    pub fn output_at<T: Element>(
        &self,
        index: usize,
        shape: &[i64],
    ) -> Result<Option<&mut [T]>, Error> {
        let Some((_, data, len)) = self.elements::<T>(index, shape)? else {
            return Ok(None);
        };
        // SAFETY: `elements` gives aligned memory for `len` elements, which nobody else has
        // and which lives until the response is sent, after the borrow of `self`. Zero is a
        // value of every element type.
        unsafe {
            ptr::write_bytes(data, 0, len);
            Ok(Some(slice::from_raw_parts_mut(data, len)))
        }
    }

    /// Copies `elements` into the output of this name; does nothing if the client did not request it.
    ///
    /// # Errors
    /// Returns an error as [`output`](Self::output) does, and if the number of `elements` does not match `shape`.
    pub fn write<T: Element>(
        &self,
        name: &str,
        shape: &[i64],
        elements: &[T],
    ) -> Result<(), Error> {
        self.write_at(self.index(name)?, shape, elements)
    }

    /// Copies `elements` into the output at this index; otherwise like [`write`](Self::write).
    ///
    /// # Errors
    /// Returns an error as [`write`](Self::write) does.
    pub fn write_at<T: Element>(
        &self,
        index: usize,
        shape: &[i64],
        elements: &[T],
    ) -> Result<(), Error> {
        let Some((output, data, len)) = self.elements::<T>(index, shape)? else {
            return Ok(());
        };
        if elements.len() != len {
            return Err(Error::internal(format!(
                "output '{}' got {} elements for shape {shape:?}",
                output.name,
                elements.len()
            )));
        }
        // SAFETY: as in `output_at`; the source is a slice of the same length, apart from it, since nothing else refers to what
        // `elements` gives.
        unsafe { ptr::copy_nonoverlapping(elements.as_ptr(), data, len) };
        Ok(())
    }

    /// Writes a BYTES output; does nothing if the client did not request it.
    ///
    /// # Errors
    /// Returns an error as [`write`](Self::write) does, and if an element is longer than 4 GiB.
    pub fn write_strings<S: AsRef<[u8]>>(
        &self,
        name: &str,
        shape: &[i64],
        elements: &[S],
    ) -> Result<(), Error> {
        let index = self.index(name)?;
        let Some((output, len)) = self.take(index, DataType::Bytes, shape)? else {
            return Ok(());
        };
        if elements.len() != len {
            return Err(Error::internal(format!(
                "output '{name}' got {} elements for shape {shape:?}",
                elements.len()
            )));
        }
        self.put_strings(output, shape, elements)
    }

    /// Writes the bytes of a BYTES output: each element after its length.
    fn put_strings<S: AsRef<[u8]>>(
        &self,
        output: &TensorConfig,
        shape: &[i64],
        elements: &[S],
    ) -> Result<(), Error> {
        let byte_size = elements
            .iter()
            .map(|e| mem::size_of::<u32>() + e.as_ref().len())
            .sum();
        let data = self.buffer(output, DataType::Bytes, shape, byte_size, 1)?;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            // SAFETY: the pieces add up to byte_size, which `data` has room for; nothing else refers to it, so no piece lies there.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(at), bytes.len()) };
            at += bytes.len();
        };
        for element in elements {
            let element = element.as_ref();
            let length = u32::try_from(element.len()).map_err(|_| {
                Error::internal(format!(
                    "an element of output '{}' is longer than 4 GiB",
                    output.name
                ))
            })?;
            put(&length.to_le_bytes());
            put(element);
        }
        Ok(())
    }

    /// Whether the client requested this output.
    pub fn wants(&self, name: &str) -> bool {
        let outputs = self.context.config().outputs();
        iter::zip(outputs, self.outputs.borrow().iter())
            .any(|(output, progress)| output.name == name && *progress != Progress::NotRequested)
    }

    /// Adds a parameter to the response, which clients receive beside the outputs.
    ///
    /// # Errors
    /// Returns an error if Triton refuses the parameter.
    pub fn parameter(&self, key: &str, value: &str) -> Result<(), Error> {
        self.set_parameter(&c_string(key), &c_string(value))
    }

    fn set_parameter(&self, key: &CStr, value: &CStr) -> Result<(), Error> {
        // SAFETY: the response is open; Triton copies both strings.
        unsafe {
            check(sys::TRITONBACKEND_ResponseSetStringParameter(
                self.raw,
                key.as_ptr(),
                value.as_ptr(),
            ))
        }
    }

    /// Adds the release to the answer, see [`Release`](crate::Release), and copies staged outputs to Triton's buffers.
    ///
    /// # Errors
    /// Returns an error if the backend has not written a requested output, or if a copy fails.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        let outputs = self.context.config().outputs();
        if let Some((output, _)) = iter::zip(outputs, self.outputs.borrow().iter())
            .find(|(_, progress)| **progress == Progress::Requested)
        {
            return Err(Error::internal(format!(
                "the backend did not write the output '{}', which the client requested",
                output.name
            )));
        }
        let release = self.context.release_id();
        if let Some(id) = release {
            self.set_parameter(RELEASE, id)?;
        }
        if let (true, Some(output)) = (self.wants_release, self.context.config().release_output()) {
            let id = release.unwrap_or_default();
            self.put_strings(output, &[1], &[id.to_bytes()])?;
        }
        for staged in self.staged.take() {
            let (from, byte_size) = (staged.host.as_ptr(), staged.host.byte_size());
            // SAFETY: `to` is Triton's buffer for this output, of `byte_size` bytes.
            unsafe {
                if staged.memory_type == sys::TRITONSERVER_MEMORY_GPU {
                    gpu::copy_from_host(staged.to, from, byte_size, staged.memory_type_id)?;
                } else {
                    ptr::copy_nonoverlapping(from, staged.to, byte_size);
                }
            }
        }
        Ok(())
    }

    fn index(&self, name: &str) -> Result<usize, Error> {
        let config = self.context.config();
        config.output_index(name).ok_or_else(|| {
            Error::internal(format!(
                "the backend writes the output '{name}'; config.pbtxt declares: {}",
                tensor_names(config.outputs())
            ))
        })
    }

    /// Marks an output as taken. Returns its config and its number of elements, or `None` if the client did not request it.
    fn take(
        &self,
        index: usize,
        data_type: DataType,
        shape: &[i64],
    ) -> Result<Option<(&'r TensorConfig, usize)>, Error> {
        let mut outputs = self.outputs.borrow_mut();
        let output = (self.context.config().outputs().get(index)).zip(outputs.get_mut(index));
        let Some((config, progress)) = output else {
            return Err(Error::internal(format!(
                "the model has no output number {index}"
            )));
        };
        if config.data_type != data_type {
            return Err(Error::internal(format!(
                "the backend writes {data_type} into output '{}', which config.pbtxt declares as {}",
                config.name, config.data_type
            )));
        }
        match *progress {
            Progress::NotRequested => return Ok(None),
            Progress::Written => {
                return Err(Error::internal(format!(
                    "the backend writes output '{}' twice",
                    config.name
                )));
            }
            Progress::Requested => *progress = Progress::Written,
        }
        let len = shape.iter().try_fold(1usize, |len, &dim| {
            len.checked_mul(usize::try_from(dim).ok()?)
        });
        len.map(|len| Some((config, len))).ok_or_else(|| {
            Error::internal(format!(
                "the backend returns output '{}' with the impossible shape {shape:?}",
                config.name
            ))
        })
    }

    /// An output with aligned, uninitialised memory for its elements, and their number.
    fn elements<T: Element>(
        &self,
        index: usize,
        shape: &[i64],
    ) -> Result<Option<(&'r TensorConfig, *mut T, usize)>, Error> {
        let Some((output, len)) = self.take(index, T::DATA_TYPE, shape)? else {
            return Ok(None);
        };
        let byte_size = len
            .checked_mul(mem::size_of::<T>())
            .filter(|&b| b <= isize::MAX as usize);
        let byte_size = byte_size.ok_or_else(|| {
            Error::internal(format!(
                "output '{}' of shape {shape:?} is too large",
                output.name
            ))
        })?;
        let data = self.buffer(output, T::DATA_TYPE, shape, byte_size, mem::align_of::<T>())?;
        Ok(Some((output, data.cast(), len)))
    }

    /// Host memory of this size and alignment that nothing else refers to: Triton's own if it fits, staged otherwise.
    fn buffer(
        &self,
        config: &TensorConfig,
        data_type: DataType,
        shape: &[i64],
        byte_size: usize,
        align: usize,
    ) -> Result<*mut u8, Error> {
        let mut output = ptr::null_mut();
        let mut buffer: *mut c_void = ptr::null_mut();
        // Requests host memory; Triton returns the actual type.
        let (mut memory_type, mut memory_type_id) = (sys::TRITONSERVER_MEMORY_CPU, 0);
        // SAFETY: the response is open; the name is NUL-terminated, the shape has as many
        // dimensions as said, and every out-pointer is valid.
        unsafe {
            check(sys::TRITONBACKEND_ResponseOutput(
                self.raw,
                &mut output,
                config.c_name.as_ptr(),
                data_type.to_raw(),
                shape.as_ptr(),
                shape.len() as u32,
            ))?;
            check(sys::TRITONBACKEND_OutputBuffer(
                output,
                &mut buffer,
                byte_size as u64,
                &mut memory_type,
                &mut memory_type_id,
            ))?;
        }
        if byte_size == 0 {
            return Ok(ptr::without_provenance_mut(align));
        }
        let data = buffer.cast::<u8>();
        if data.is_null() {
            return Err(Error::unavailable(format!(
                "Triton returned no memory for the {byte_size} bytes of output '{}'",
                config.name
            )));
        }
        let in_place = memory_type != sys::TRITONSERVER_MEMORY_GPU && data.addr() % align == 0;
        if in_place && self.borrows.write(self.raw, data, byte_size) {
            return Ok(data);
        }
        let host = HostBuffer::zeroed(byte_size)?;
        let staged = host.as_ptr();
        self.staged.borrow_mut().push(Staged {
            host,
            to: data,
            memory_type,
            memory_type_id,
        });
        Ok(staged)
    }
}
