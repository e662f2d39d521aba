//! Clients that share memory with the server: inputs and outputs may be anywhere in it, and may overlap.

use std::borrow::Cow;

use proptest::prelude::*;
use triton_backend::{Batch, Error, Request as Asked, Response};
use triton_rs_sys as sys;
use triton_testing::fake::{Config, Input, Report, Request};

use super::scripted::execute;

fn config() -> Config {
    Config::new()
        .input("x", "TYPE_INT32", &[-1])
        .input("names", "TYPE_STRING", &[-1])
        .input("flags", "TYPE_BOOL", &[-1])
        .output("y", "TYPE_INT32", &[-1])
        .output("z", "TYPE_INT32", &[-1])
        .output("names", "TYPE_STRING", &[-1])
}

fn answer(
    request: Request,
    mut script: impl FnMut(&Asked<'_>, &Response<'_>) -> Result<(), Error> + 'static,
) -> Report {
    execute(config(), [request], move |batch: &Batch<'_>| {
        batch.respond_each(|request, response| script(request, response));
        Ok(())
    })
}

fn numbers(count: usize) -> Input {
    let elements: Vec<i32> = (0..count as i32).collect();
    Input::new("x", &[count as i64], &elements)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The place of an output does not change its content. The offset need not be a multiple of an element's size.
    #[test]
    fn an_output_over_an_input_is_what_it_is_elsewhere(
        count in 1usize..40,
        offset in 0usize..160,
        in_place in any::<bool>(),
    ) {
        let kept = (4 * count).saturating_sub(offset) / 4;
        prop_assume!(kept > 0);
        let request = numbers(count);
        let request = Request::new().input(request).output("y").outputs_over("x", offset);
        let report = answer(request, move |request, response| {
            let tensor = request.input("x")?;
            let x = tensor.as_slice::<i32>()?;
            let Some(found) = x.get(count - kept..) else {
                return Err(Error::internal("fewer elements than were sent"));
            };
            if !in_place {
                return response.write("y", &[kept as i64], found);
            }
            if let Some(y) = response.output::<i32>("y", &[kept as i64])? {
                for (y, x) in y.iter_mut().rev().zip(found.iter().rev()) {
                    *y = *x;
                }
            }
            Ok(())
        });
        let expected: Vec<i32> = (count as i32 - kept as i32..count as i32).collect();
        prop_assert_eq!(report.success(0).output::<i32>("y").0, expected);
    }
}

#[test]
fn two_outputs_in_one_place_do_not_write_over_each_other_while_they_are_written() {
    let request = Request::new().input(numbers(4)).output("y").output("z");
    let report = answer(request.outputs_over("x", 0), |_, response| {
        let y = response.output::<i32>("y", &[4])?.expect("asked for");
        let z = response.output::<i32>("z", &[4])?.expect("asked for");
        y.fill(1);
        z.fill(2);
        assert_eq!((&*y, &*z), (&[1; 4][..], &[2; 4][..]));
        Ok(())
    });
    report.success(0);
}

#[test]
fn an_input_is_not_read_from_where_an_output_is_written() {
    for split in [&[][..], &[8]] {
        // In one buffer the input would be borrowed; in two it is gathered.
        let request = Request::new().input(numbers(4).split(split)).output("y");
        let report = answer(request.outputs_over("x", 0), |request, response| {
            let y = response.output::<i32>("y", &[2])?.expect("asked for");
            let x = request.input("x")?;
            let x = x.as_slice::<i32>()?;
            y.copy_from_slice(&x[2..]);
            Ok(())
        });
        let failure = report.failure(0);
        assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INVALID_ARG);
        assert!(
            failure.message.contains("tensor 'x' overlaps an output"),
            "{failure:?}"
        );
    }
}

#[test]
fn an_answered_request_does_not_keep_memory_from_the_next() {
    let requests = || {
        let request = Request::new().input(numbers(4)).output("y");
        request.outputs_over("x", 0)
    };
    let report = execute(config(), [requests(), requests()], |batch: &Batch<'_>| {
        batch.respond_each(|request, response| {
            let tensor = request.input("x")?;
            let x = tensor.as_slice::<i32>()?;
            response.write("y", &[2], &x[2..])
        });
        Ok(())
    });
    for index in [0, 1] {
        assert_eq!(report.success(index).output::<i32>("y").0, [2, 3]);
    }
}

#[test]
fn strings_are_moved_within_the_memory_they_lie_in() {
    let names = Input::strings("names", &[3], &["", "abc", "de"]);
    let request = Request::new().input(names).output("names");
    let report = answer(request.outputs_over("names", 0), |request, response| {
        let strings = request.input("names")?.strings()?;
        let mut turned: Vec<&[u8]> = strings.iter().collect();
        turned.reverse();
        response.write_strings("names", &[3], &turned)
    });
    let expected = b"\x02\0\0\0de\x03\0\0\0abc\0\0\0\0";
    assert_eq!(report.success(0).raw("names").bytes, expected);
}

#[test]
fn bools_are_checked_in_a_copy_that_no_client_can_write() {
    let flags = || Input::new("flags", &[3], &[true, false, true]);
    for flags in [flags(), flags().unaligned(), flags().split(&[1])] {
        let report = answer(Request::new().input(flags), |request, _| {
            let tensor = request.input("flags")?;
            let flags = tensor.as_slice::<bool>()?;
            assert!(matches!(flags, Cow::Owned(_)), "borrowed from the client");
            assert_eq!(*flags, [true, false, true]);
            Ok(())
        });
        report.success(0);
    }
    let two = Input::raw("flags", sys::TRITONSERVER_TYPE_BOOL, &[2], vec![1, 2]);
    let report = answer(Request::new().input(two), |request, _| {
        request.input("flags")?.as_slice::<bool>().map(drop)
    });
    assert!(report.failure(0).message.contains("holds 2 at element 1"));
}

#[test]
fn a_batch_of_no_requests_is_a_batch() {
    // The array of an empty batch may be NULL.
    execute(config(), [], |batch: &Batch<'_>| {
        assert!(batch.is_empty());
        Ok(())
    });
}
