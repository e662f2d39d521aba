//! Tracks the memory of Triton's buffers to which a backend holds references.
//!
//! A client may place inputs and outputs in shared memory of its own, and may use one place twice. Rust must never have a `&mut` to memory
//! that another reference covers.

use std::cell::RefCell;
use std::ops::Range;

use smallvec::SmallVec;
use triton_rs_sys as sys;

/// The references that the backend holds during one batch.
#[derive(Debug, Default)]
pub(crate) struct Borrows {
    /// Address ranges of inputs, each until the batch ends.
    read: RefCell<SmallVec<[Range<usize>; 32]>>,
    /// Address ranges of outputs, each until its response is complete.
    written: RefCell<SmallVec<[Output; 32]>>,
}

#[derive(Debug)]
struct Output {
    response: *mut sys::TRITONBACKEND_Response,
    addresses: Range<usize>,
}

impl Borrows {
    /// Records that an input is borrowed until the batch ends. Returns `false`, and records nothing, if an output that is being written
    /// overlaps it.
    #[must_use]
    pub(crate) fn read(&self, start: *const u8, len: usize) -> bool {
        if self.is_written(start, len) {
            return false;
        }
        let addresses = range(start, len);
        let mut read = self.read.borrow_mut();
        // A backend may borrow the same input repeatedly.
        if !read.contains(&addresses) {
            read.push(addresses);
        }
        true
    }

    /// Whether an output that is being written overlaps this memory.
    pub(crate) fn is_written(&self, start: *const u8, len: usize) -> bool {
        let addresses = range(start, len);
        let written = self.written.borrow();
        written
            .iter()
            .any(|output| overlap(&output.addresses, &addresses))
    }

    /// Records that an output is written until its response is complete. Returns `false`, and records nothing, if a borrowed input or
    /// another output overlaps it.
    #[must_use]
    pub(crate) fn write(
        &self,
        response: *mut sys::TRITONBACKEND_Response,
        start: *const u8,
        len: usize,
    ) -> bool {
        let addresses = range(start, len);
        let is_read = self.read.borrow().iter().any(|r| overlap(r, &addresses));
        if is_read || self.is_written(start, len) {
            return false;
        }
        self.written.borrow_mut().push(Output {
            response,
            addresses,
        });
        true
    }

    /// Ends the borrows of a response's outputs.
    pub(crate) fn release(&self, response: *mut sys::TRITONBACKEND_Response) {
        let mut written = self.written.borrow_mut();
        written.retain(|output| output.response != response);
    }
}

fn range(start: *const u8, len: usize) -> Range<usize> {
    start.addr()..start.addr().saturating_add(len)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No two references cover one byte, unless both are read-only.
        #[test]
        fn what_is_written_is_referred_to_once(
            steps in prop::collection::vec((0usize..4, 1usize..64, 0usize..24, 0usize..3), 1..40),
        ) {
            let borrows = Borrows::default();
            let response = |number: usize| ptr::without_provenance_mut(8 * (number + 1));
            let mut read: Vec<Range<usize>> = Vec::new();
            let mut written: Vec<(usize, Range<usize>)> = Vec::new();
            for (step, start, len, number) in steps {
                let (place, bytes) = (ptr::without_provenance::<u8>(start), start..start + len);
                let shared = |other: &Range<usize>| bytes.clone().any(|byte| other.contains(&byte));
                let is_written = written.iter().any(|(_, other)| shared(other));
                match step {
                    0 => {
                        prop_assert_eq!(borrows.read(place, len), !is_written);
                        if !is_written {
                            read.push(bytes);
                        }
                    }
                    1 | 2 => {
                        let free = !is_written && !read.iter().any(shared);
                        prop_assert_eq!(borrows.write(response(number), place, len), free);
                        if free {
                            written.push((number, bytes));
                        }
                    }
                    _ => {
                        borrows.release(response(number));
                        written.retain(|(other, _)| *other != number);
                    }
                }
            }
            prop_assert!(borrows.read.borrow().len() <= read.len());
        }
    }
}
