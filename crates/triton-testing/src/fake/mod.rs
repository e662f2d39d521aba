//! A fake of Triton's C API, for tests of a backend's lifecycle without a server.
//!
//! It defines the `TRITONSERVER_*` and `TRITONBACKEND_*` functions of the real server, so the code under test is identical to the code in
//! production. Tests build requests (inputs in several buffers, unaligned, tagged as GPU memory, of wrong size), let a backend execute
//! them, and check the responses, errors, releases and statistics. An operation that would crash a server (a response sent twice, a request
//! used after its release) is recorded as a violation. Input and output buffers are freed when the backend gives them up, so that
//! AddressSanitizer detects a late access.
//!
//! ```no_run
//! use triton_testing::fake::{Config, Input, Request, Server};
//! # fn entry_points() -> triton_testing::fake::EntryPoints { unimplemented!() }
//!
//! // let entry_points = triton_backend::entry_points::<Scale>();
//! let server = Server::start("scale", entry_points()).unwrap();
//! let config = Config::new()
//!     .input("x", "TYPE_FP32", &[-1])
//!     .output("y", "TYPE_FP32", &[-1])
//!     .parameter("FACTOR", "2");
//! let model = server.load("scale", config).unwrap();
//! let request = Request::new().input(Input::new("x", &[2], &[1.0f32, 3.0])).output("y");
//! let report = model.execute([request]);
//! assert_eq!(report.success(0).output::<f32>("y"), ([2.0, 6.0].to_vec(), vec![2]));
//! ```

#![allow(
    unsafe_code,
    reason = "it stands in for a C library, behind the same raw pointers"
)]
#![allow(
    clippy::vec_box,
    reason = "the backend holds pointers to the boxed objects, which must not move"
)]

mod api;
mod element;
mod failure;
mod objects;
mod parameters;
mod process;
mod report;
mod request;
mod server;

pub use element::Element;
pub use failure::{Failure, Statistic};
pub use parameters::parameters_are_named;
pub use process::{Line, log_lines, metric, set_api_version, set_metrics_enabled};
pub use report::{Output, Report, Response};
pub use request::{Config, Input, Memory, Request};
pub use server::{LoadedModel, Server};
pub use triton_rs_sys::EntryPoints;
