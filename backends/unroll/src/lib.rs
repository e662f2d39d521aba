//! unroll
