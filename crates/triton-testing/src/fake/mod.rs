//! A fake of the C API of Triton (in progress).
