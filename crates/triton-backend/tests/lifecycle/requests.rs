//! Each request is answered once and released once.

use std::cell::Cell;
use std::rc::Rc;

use triton_backend::{Batch, Error, Request as Asked, Response};
use triton_rs_sys as sys;
use triton_testing::fake::{Input, Request, log_lines};

use super::scripted::{config, execute, on_execute, server};

fn request(elements: &[f32]) -> Request {
    Request::new()
        .input(Input::new("x", &[elements.len() as i64], elements))
        .output("y")
}

fn double(request: &Asked<'_>, response: &Response<'_>) -> Result<(), Error> {
    let x = request.input("x")?;
    let doubled: Vec<f32> = x.vector::<f32>()?.iter().map(|x| 2.0 * x).collect();
    response.write("y", x.shape(), &doubled)
}

fn double_each(batch: &Batch<'_>) -> Result<(), Error> {
    batch.respond_each(double);
    Ok(())
}

#[test]
fn every_request_of_a_batch_is_answered() {
    let report = execute(
        config(),
        [request(&[1.0]), request(&[2.0, 3.0]), request(&[])],
        double_each,
    );
    assert_eq!(report.success(0).output::<f32>("y"), (vec![2.0], vec![1]));
    assert_eq!(
        report.success(1).output::<f32>("y"),
        (vec![4.0, 6.0], vec![2])
    );
    assert_eq!(report.success(2).output::<f32>("y"), (vec![], vec![0]));
    assert_eq!(report.batch_statistics(), [3]);
}

#[test]
fn one_bad_request_fails_alone() {
    let bad = Request::new().output("y");
    let report = execute(
        config(),
        [request(&[1.0]), bad, request(&[2.0])],
        double_each,
    );
    report.success(0);
    let failure = report.failure(1);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INVALID_ARG);
    assert_eq!(failure.message, "model 'm': the request has no input 'x'");
    report.success(2);
}

#[test]
fn an_error_answers_what_is_pending() {
    let report = execute(config(), [request(&[1.0]), request(&[2.0])], |batch| {
        batch.respond(0, double);
        Err(Error::unavailable("the store is down"))
    });
    report.success(0);
    let failure = report.failure(1);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_UNAVAILABLE);
    assert_eq!(failure.message, "model 'm': the store is down");
}

#[test]
fn a_panic_answers_what_is_pending_and_the_next_batch_works() {
    let server = server();
    let model = server.load("m", config()).unwrap();
    on_execute(|batch| {
        batch.respond(1, double);
        panic!("index {} out of range", 7);
    });
    let report = model.execute([request(&[1.0]), request(&[2.0])]);
    let failure = report.failure(0);
    assert_eq!(failure.code, sys::TRITONSERVER_ERROR_INTERNAL);
    assert_eq!(
        failure.message,
        "model 'm': the backend panicked: index 7 out of range"
    );
    report.success(1);
    assert_eq!(report.batch_statistics(), [2]);

    on_execute(double_each);
    model.execute([request(&[4.0])]).success(0);
}

#[test]
fn a_panic_while_writing_outputs_fails_that_request_alone() {
    let report = execute(config(), [request(&[1.0]), request(&[2.0])], |batch| {
        let mut first = true;
        batch.respond_each(|request, response| {
            if std::mem::take(&mut first) {
                response.output::<f32>("y", &[1])?;
                panic!("half written");
            }
            double(request, response)
        });
        Ok(())
    });
    assert_eq!(
        report.failure(0).message,
        "model 'm': the backend panicked: half written"
    );
    report.success(1);
}

#[test]
fn a_panic_whose_payload_panics_again_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("and again");
        }
    }
    let report = execute(config(), [request(&[1.0])], |_| std::panic::panic_any(Bomb));
    assert_eq!(
        report.failure(0).message,
        "model 'm': the backend panicked: no message"
    );
}

#[test]
fn a_forgotten_request_is_answered_with_an_error() {
    let report = execute(config(), [request(&[1.0]), request(&[2.0])], |batch| {
        batch.respond(1, double);
        Ok(())
    });
    assert_eq!(
        report.failure(0).message,
        "model 'm': the backend left this request unanswered"
    );
    report.success(1);
}

#[test]
fn a_rejected_request_keeps_its_first_answer() {
    let report = execute(config(), [request(&[1.0]), request(&[2.0])], |batch| {
        batch.reject(0, Error::invalid_argument("first"));
        batch.reject(0, Error::invalid_argument("second"));
        assert!(!batch.respond(0, double));
        assert!(batch.respond(1, double));
        batch.reject(1, Error::internal("late"));
        assert!(!batch.respond(7, double), "beyond the batch");
        batch.reject(7, Error::internal("beyond the batch"));
        assert_eq!(batch.pending().count(), 0);
        Ok(())
    });
    assert_eq!(report.failure(0).message, "model 'm': first");
    report.success(1);
}

#[test]
fn answering_from_inside_an_answer_does_not_answer_twice() {
    let report = execute(config(), [request(&[1.0])], |batch| {
        batch.respond(0, |request, response| {
            assert!(!batch.respond(0, double));
            double(request, response)
        });
        Ok(())
    });
    report.success(0);
    let report = execute(config(), [request(&[1.0])], |batch| {
        let sent = batch.respond(0, |request, response| {
            batch.reject(0, Error::invalid_argument("changed my mind"));
            double(request, response)
        });
        assert!(sent);
        Ok(())
    });
    report.success(0);
}

#[test]
fn cancelled_requests_cost_no_work() {
    let served = Rc::new(Cell::new(0));
    let counter = served.clone();
    let report = execute(
        config(),
        [request(&[1.0]).cancelled(), request(&[2.0])],
        move |batch| {
            assert!(batch.requests()[0].is_cancelled());
            batch.respond_each(|request, response| {
                counter.set(counter.get() + 1);
                double(request, response)
            });
            Ok(())
        },
    );
    assert_eq!(report.failure(0).code, sys::TRITONSERVER_ERROR_CANCELLED);
    report.success(1);
    assert_eq!(served.get(), 1);
}

#[test]
fn a_request_without_response_is_released_and_logged() {
    let report = execute(
        config(),
        [request(&[1.0]).without_response(), request(&[2.0])],
        double_each,
    );
    report.lost(0);
    report.success(1);
    assert!(!log_lines("cannot respond to a request: no response for this request").is_empty());
}

#[test]
fn all_inputs_stay_readable_until_the_batch_ends() {
    let report = execute(config(), [request(&[1.0]), request(&[2.0])], |batch| {
        let requests = batch.requests();
        let first = requests[0].input("x")?;
        let elements = first.as_slice::<f32>()?;
        batch.respond(0, double);
        batch.respond(1, |_, response| response.write("y", &[1], &elements));
        Ok(())
    });
    assert_eq!(report.success(1).output::<f32>("y").0, [1.0]);
}

#[test]
fn statistics_take_the_marks_of_the_backend() {
    let report = execute(config(), [request(&[1.0])], |batch| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        batch.compute_starts();
        batch.compute_ends();
        std::thread::sleep(std::time::Duration::from_millis(2));
        double_each(batch)
    });
    report.success(0);
    let [start, compute_start, compute_end, end] = report.statistics(0)[0].times_ns;
    assert!(compute_start - start >= 2_000_000 && end - compute_end >= 2_000_000);
}

#[test]
fn a_batch_counts_rows_where_the_model_has_a_batch_dimension() {
    let rows = |rows: usize| {
        let elements = vec![0.5f32; 2 * rows];
        Request::new()
            .input(Input::new("x", &[rows as i64, 2], &elements))
            .output("y")
    };
    let report = execute(config().max_batch_size(8), [rows(3), rows(1)], |batch| {
        batch.respond_each(|request, response| {
            let x = request.input("x")?;
            response.write("y", x.shape(), &x.as_slice::<f32>()?)
        });
        Ok(())
    });
    assert_eq!(report.success(0).output::<f32>("y").1, [3, 2]);
    assert_eq!(report.batch_statistics(), [4]);
    let failed = execute(config(), [request(&[1.0])], |_| Err(Error::internal("no")));
    assert_eq!(failed.batch_statistics(), [0u64; 0], "nothing succeeded");
}

#[test]
fn an_id_is_the_clients() {
    let report = execute(
        config(),
        [request(&[1.0]).id("abc"), request(&[1.0])],
        |batch| {
            assert_eq!(batch.requests()[0].id(), "abc");
            assert_eq!(batch.requests()[1].id(), "");
            assert_eq!((batch.len(), batch.is_empty()), (2, false));
            double_each(batch)
        },
    );
    report.success(0);
}
