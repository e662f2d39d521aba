//! The error type of the SDK.

use std::borrow::Cow;
use std::fmt;

use triton_rs_sys as sys;

/// The kind of an [`Error`]; Triton maps it to an HTTP status or gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No other code fits.
    Unknown,
    /// A defect in the backend or the server.
    Internal,
    /// Something named in the request or the config does not exist.
    NotFound,
    /// The request or the config is wrong; a retry does not help.
    InvalidArgument,
    /// Not possible now; a retry may succeed.
    Unavailable,
    /// Not supported by this backend or server.
    Unsupported,
    /// An object with this name already exists.
    AlreadyExists,
    /// The client cancelled the request.
    Cancelled,
}

impl Code {
    pub(crate) fn to_raw(self) -> sys::TRITONSERVER_Error_Code {
        match self {
            Code::Unknown => sys::TRITONSERVER_ERROR_UNKNOWN,
            Code::Internal => sys::TRITONSERVER_ERROR_INTERNAL,
            Code::NotFound => sys::TRITONSERVER_ERROR_NOT_FOUND,
            Code::InvalidArgument => sys::TRITONSERVER_ERROR_INVALID_ARG,
            Code::Unavailable => sys::TRITONSERVER_ERROR_UNAVAILABLE,
            Code::Unsupported => sys::TRITONSERVER_ERROR_UNSUPPORTED,
            Code::AlreadyExists => sys::TRITONSERVER_ERROR_ALREADY_EXISTS,
            Code::Cancelled => sys::TRITONSERVER_ERROR_CANCELLED,
        }
    }

    pub(crate) fn from_raw(raw: sys::TRITONSERVER_Error_Code) -> Self {
        match raw {
            sys::TRITONSERVER_ERROR_INTERNAL => Code::Internal,
            sys::TRITONSERVER_ERROR_NOT_FOUND => Code::NotFound,
            sys::TRITONSERVER_ERROR_INVALID_ARG => Code::InvalidArgument,
            sys::TRITONSERVER_ERROR_UNAVAILABLE => Code::Unavailable,
            sys::TRITONSERVER_ERROR_UNSUPPORTED => Code::Unsupported,
            sys::TRITONSERVER_ERROR_ALREADY_EXISTS => Code::AlreadyExists,
            sys::TRITONSERVER_ERROR_CANCELLED => Code::Cancelled,
            _ => Code::Unknown,
        }
    }
}

/// A failure with a [`Code`] and a message for the sender of the request or the author of the config.
///
/// The message names the wrong value, its tensor or file, and the accepted values. The SDK adds the prefix `model 'NAME': ` before the
/// message leaves the server.
///
/// ```
/// use triton_backend::{Code, Error};
///
/// fn rows(shape: &[i64]) -> Result<usize, Error> {
///     let rows = shape.first().and_then(|rows| usize::try_from(*rows).ok());
///     rows.ok_or_else(|| {
///         Error::invalid_argument(format!("shape {shape:?}; accepted: one dimension or more"))
///     })
/// }
///
/// let error = rows(&[]).unwrap_err().context("tensor 'x'");
/// assert_eq!(error.code(), Code::InvalidArgument);
/// assert_eq!(error.message(), "tensor 'x': shape []; accepted: one dimension or more");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: Cow<'static, str>,
}

macro_rules! shorthands {
    ($($(#[$doc:meta])* $name:ident => $code:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, message)
        }
    )*};
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    shorthands! {
        /// An error with [`Code::Internal`]: a defect in the backend. HTTP clients see status 500.
        internal => Internal;
        /// An error with [`Code::NotFound`]: a file or name does not exist.
        not_found => NotFound;
        /// An error with [`Code::InvalidArgument`]: the request or the config is wrong. HTTP clients see status 400.
        invalid_argument => InvalidArgument;
        /// An error with [`Code::Unavailable`]: a retry may succeed, for example when a store is down.
        unavailable => Unavailable;
        /// An error with [`Code::Unsupported`]: valid, but not possible with this backend or server.
        unsupported => Unsupported;
        /// An error with [`Code::Cancelled`]: the client no longer waits.
        cancelled => Cancelled;
    }

    /// The kind of failure, which Triton turns into a status.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, without the model's name.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with the prefix `context: `.
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self {
            code: self.code,
            message: format!("{context}: {}", self.message).into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
