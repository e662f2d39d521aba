//! Code that the compiler must refuse: a tensor, a request or an output buffer that outlives its batch. Each case in `compile_fail/` has
//! its expected message in a file beside it. `TRYBUILD=overwrite` rewrites the messages after a change of compiler.

#[test]
fn nothing_outlives_its_request() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
