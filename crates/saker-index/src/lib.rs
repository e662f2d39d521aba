//! Approximate nearest neighbours with FAISS.
//!
//! One type, [`Index`]: built from vectors and ids by a factory string, written to and read from FAISS's own file
//! format, searched with many queries at once into buffers of the caller. Building and files go through the crate
//! `faiss`; the search calls its bindings, `faiss-sys`, because `faiss` needs `&mut self` to search an index of unknown
//! kind and allocates its answers, neither of which suits a request path.
//!
//! ```
//! use saker_index::{Index, Metric};
//!
//! # fn main() -> Result<(), saker_index::Error> {
//! let vectors = [1.0, 0.0, 0.0, 1.0, 0.7, 0.7];
//! let index = Index::build("Flat", 2, Metric::InnerProduct, &vectors, &[10, 20, 30])?;
//! let (mut scores, mut ids) = ([0.0; 2], [0; 2]);
//! index.search(&[1.0, 0.1], 2, &mut scores, &mut ids)?;
//! assert_eq!(ids, [10, 30]);
//! # Ok(())
//! # }
//! ```

#![warn(clippy::indexing_slicing)]

mod error;
mod index;
mod metric;
#[allow(unsafe_code)] // the C API of FAISS; each block says what makes it sound
mod native;
mod parameters;
#[allow(unsafe_code)] // the thread settings of OpenMP and OpenBLAS, both C functions
mod threads;

pub use error::Error;
pub use index::{Index, NO_NEIGHBOUR};
pub use metric::Metric;
