//! What the compiler must refuse: a tensor, a request or an output buffer that outlives its
//! batch. Each case of `compile_fail/` stands beside the message it gives;
//! `TRYBUILD=overwrite` writes the messages anew after a change of compiler.

#[test]
fn nothing_outlives_its_request() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
