//! The golden pipeline: 60 requests that NVTabular, FAISS and ONNX Runtime answered, answered again by
//! the 14 steps on a real Triton.

use triton_testing::tensor::Tensor;

use crate::support::golden::{Answer, answers, golden};

/// The inputs of a request with these users.
fn request(answers: &[&Answer]) -> Vec<Tensor> {
    let column = |value: fn(&Answer) -> i32| -> Vec<i32> {
        answers.iter().map(|answer| value(answer)).collect()
    };
    vec![
        Tensor::i32("user_id", &column(|answer| answer.user_id)),
        Tensor::i32("device_type", &column(|answer| answer.device_type)),
        Tensor::i32("timestamp", &column(|answer| answer.timestamp)),
    ]
}

#[test]
fn every_answer_is_reproduced() {
    let golden = golden();
    for answer in answers() {
        let outputs = golden.answer("ensemble_model", &request(&[answer]));
        answer.assert_reproduced(&outputs.i32("ordered_ids"), &outputs.f32("ordered_scores"));
        assert_eq!(outputs.shape("ordered_ids"), [20]);
        assert_eq!(outputs.shape("ordered_scores"), [20]);
    }
}

#[test]
fn eight_clients_at_once_get_the_same_answers() {
    let golden = golden();
    std::thread::scope(|scope| {
        for client in 0..8 {
            scope.spawn(move || {
                let answers = answers();
                for index in 0..answers.len() {
                    let answer = &answers[(index + 7 * client) % answers.len()];
                    let outputs = golden.answer("ensemble_model", &request(&[answer]));
                    answer.assert_reproduced(
                        &outputs.i32("ordered_ids"),
                        &outputs.f32("ordered_scores"),
                    );
                }
            });
        }
    });
}

#[test]
fn several_users_in_one_request_get_what_each_gets_alone() {
    let golden = golden();
    for users in [2, 7, 60] {
        for group in answers().chunks(users) {
            let group: Vec<&Answer> = group.iter().collect();
            let outputs = golden.answer("ensemble_model", &request(&group));
            let ids = outputs.i32("ordered_ids");
            let scores = outputs.f32("ordered_scores");
            assert_eq!(ids.len(), 20 * group.len());
            for (row, answer) in group.iter().enumerate() {
                let row = 20 * row..20 * (row + 1);
                answer.assert_reproduced(&ids[row.clone()], &scores[row]);
            }
        }
    }
}

#[test]
fn steps_give_what_the_reference_gave() {
    let golden = golden();
    for answer in answers() {
        let tensors = golden.trace(&request(&[answer]));
        for (model, features) in [
            ("nvt_user_transform", &answer.user_features),
            ("nvt_context_transform", &answer.context_features),
        ] {
            for (name, expected) in features {
                let tensor = &tensors[&format!("{model}/{name}")];
                let got = match tensor.data_type.as_str() {
                    "INT32" => f64::from(tensor.to_i32()[0]),
                    _ => f64::from(tensor.to_f32()[0]),
                };
                assert_eq!(tensor.shape, [1]);
                assert!(
                    (got - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                    "user {}: {name} is {got}, not {expected}",
                    answer.user_id
                );
            }
        }
        let vector = &tensors["query_tower/output_1"];
        assert_eq!(vector.shape, [1, 64]);
        for (got, expected) in vector.to_f32().iter().zip(&answer.query_embedding_head) {
            assert!((f64::from(*got) - expected).abs() < 1e-5);
        }
        let candidates = tensors["faiss_retrieval/candidate_ids"].to_i32();
        let sorted = |ids: &[i32]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        assert_eq!(
            sorted(&candidates),
            sorted(&answer.candidate_ids),
            "user {}",
            answer.user_id
        );
        // Where two candidates are equally near, either may come first.
        let swapped = candidates
            .iter()
            .zip(&answer.candidate_ids)
            .filter(|(got, expected)| got != expected)
            .count();
        assert!(
            swapped <= 4,
            "user {}: {swapped} candidates differ",
            answer.user_id
        );
    }
}

#[test]
fn optional_inputs_may_be_left_out() {
    let golden = golden();
    let answer = answers()
        .iter()
        .find(|answer| answer.device_type == -1)
        .expect("a request of an unknown device");
    let [user, device, timestamp] = request(&[answer]).try_into().expect("three inputs");
    // An absent device is an unknown one.
    let outputs = golden.answer("ensemble_model", &[user.clone(), timestamp.clone()]);
    answer.assert_reproduced(&outputs.i32("ordered_ids"), &outputs.f32("ordered_scores"));
    // An absent time is the server's, as 0 is.
    for inputs in [
        vec![user.clone()],
        vec![user.clone(), device],
        vec![user.clone(), Tensor::i32("timestamp", &[0])],
    ] {
        let outputs = golden.answer("ensemble_model", &inputs);
        let scores = outputs.f32("ordered_scores");
        assert_eq!(scores.len(), 20);
        assert!(
            scores.is_sorted_by(|left, right| left >= right),
            "{scores:?}"
        );
    }
    // For several users, too.
    let outputs = golden.answer(
        "ensemble_model",
        &[Tensor::i32("user_id", &[5364, 34185, -7])],
    );
    assert_eq!(outputs.i32("ordered_ids").len(), 60);
}

#[test]
fn no_user_at_all_gets_an_empty_answer() {
    let outputs = golden().answer("ensemble_model", &[Tensor::i32("user_id", &[])]);
    assert!(outputs.i32("ordered_ids").is_empty());
    assert!(outputs.f32("ordered_scores").is_empty());
}

#[test]
fn only_the_outputs_asked_for_are_sent() {
    let golden = golden();
    let answer = &answers()[0];
    let outputs = golden
        .server
        .infer("ensemble_model", &request(&[answer]), &["ordered_ids"])
        .expect("an answer");
    assert_eq!(outputs.0.len(), 1);
    assert_eq!(outputs.i32("ordered_ids").len(), 20);
}

#[test]
fn ids_at_the_ends_of_their_type_are_cold_starts() {
    let golden = golden();
    let moment = [
        Tensor::i32("device_type", &[1]),
        Tensor::i32("timestamp", &[1_716_444_611]),
    ];
    let ask = |user: i32| {
        let mut inputs = vec![Tensor::i32("user_id", &[user])];
        inputs.extend(moment.clone());
        let outputs = golden.answer("ensemble_model", &inputs);
        (outputs.i32("ordered_ids"), outputs.f32("ordered_scores"))
    };
    let cold = ask(-1);
    for user in [i32::MIN, i32::MAX, 0, 1_999_999_999] {
        assert_eq!(ask(user), cold, "user {user}");
    }
}

#[test]
fn wrong_requests_are_refused_and_the_next_one_works() {
    let golden = golden();
    let answer = &answers()[0];
    let good = request(&[answer]);
    let wrong = [
        vec![],
        vec![Tensor::f32("user_id", &[1.0])],
        vec![Tensor::i32("user_id", &[1]).shaped(&[1, 1])],
        vec![Tensor::i32("user", &[1])],
        // Two users and three devices.
        vec![
            Tensor::i32("user_id", &[1, 2]),
            Tensor::i32("device_type", &[0, 1, 2]),
        ],
    ];
    for inputs in wrong {
        let error = golden
            .server
            .infer("ensemble_model", &inputs, &[])
            .expect_err(&format!("took {inputs:?}"));
        crate::support::checks::is_clients_fault(&error);
        let outputs = golden.answer("ensemble_model", &good);
        answer.assert_reproduced(&outputs.i32("ordered_ids"), &outputs.f32("ordered_scores"));
    }
}
