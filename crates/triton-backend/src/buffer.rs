//! Host memory with a fixed address while raw pointers into it exist.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::Error;

/// Zeroed host memory, aligned for every element type.
#[derive(Debug)]
pub(crate) struct HostBuffer {
    data: NonNull<u8>,
    layout: Layout,
}

const ALIGN: usize = 64;

impl HostBuffer {
    /// Allocates zeroed memory; `byte_size` is at least 1.
    pub(crate) fn zeroed(byte_size: usize) -> Result<Self, Error> {
        let layout = Layout::from_size_align(byte_size.max(1), ALIGN).map_err(|_| {
            Error::unavailable(format!("{byte_size} bytes exceed the address space"))
        })?;
        // SAFETY: the layout is not of size 0.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })
            .ok_or_else(|| Error::unavailable(format!("cannot allocate {byte_size} bytes")))?;
        Ok(Self { data, layout })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.data.as_ptr(), self.layout) };
    }
}
