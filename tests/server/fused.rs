//! The fused ensemble: the answers of the 14 steps, whatever the request, the store or the release.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use saker_store::seen::{Method, Prefixes};
use saker_testing::runtime;
use triton_client::Triton;
use triton_testing::{
    server::{Outputs, TritonServer},
    tensor::Tensor,
};

use crate::pipeline::{ITEMS, Shop, USERS, write_shop};
use crate::support::{
    store::{command, features_key, mark_seen},
    until::until,
};

const STEPS: &str = "ensemble_model";
const FUSED: &str = "ensemble_fused";

/// The tiny shop, assembled: each user's gender is the category whose popular items fill up.
fn shop(deadline_ms: u32) -> Shop {
    let shop = Shop::of(|folder| {
        write_shop(folder);
        let definition = OpenOptions::new()
            .append(true)
            .open(folder.join("pipeline.toml"));
        writeln!(
            definition.expect("the definition"),
            "popularity_category = \"gender\"\ndeadline_ms = {deadline_ms}"
        )
        .expect("two more lines");
    });
    shop.assembled()
}

fn serve(shop: &Shop) -> TritonServer {
    runtime::triton()
        .expect("an installed Triton and backends")
        .repository(shop.folder.path().join("state/tiny/repository"))
        .load(STEPS)
        .load(FUSED)
        .start()
        .expect("a running Triton")
}

/// What both ensembles answer, after a look that it is the same.
fn same(server: &TritonServer, request: &[Tensor]) -> Outputs {
    let ask = |model| server.infer(model, request, &[]);
    let steps = ask(STEPS).expect("an answer of the 14 steps");
    let fused = ask(FUSED).expect("an answer of the fused ensemble");
    assert_eq!(
        fused.i32("ordered_ids"),
        steps.i32("ordered_ids"),
        "{request:?}"
    );
    let scores = [&fused, &steps].map(|answer| answer.f32("ordered_scores"));
    for (fused, steps) in scores[0].iter().zip(&scores[1]) {
        assert!((fused - steps).abs() <= 1e-6, "{request:?}: {scores:?}");
    }
    assert_eq!(fused.get("release"), steps.get("release"));
    fused
}

fn of_user(user: i32) -> [Tensor; 2] {
    let time = 1_700_000_000 + user.rem_euclid(24) * 3600;
    [
        Tensor::i32("user_id", &[user]),
        Tensor::i32("timestamp", &[time]),
    ]
}

#[test]
fn every_answer_is_that_of_the_14_steps() {
    let shop = shop(2000);
    let server = serve(&shop);
    for user in (1..=USERS as i32).chain([0, -1, 99_999, i32::MIN, i32::MAX]) {
        let answer = same(&server, &of_user(user));
        assert_eq!(answer.i32("ordered_ids").len(), 5, "user {user}");
    }
    // Without the optional input the server's own hour counts, which may turn between two requests; 0 stands for it, too.
    let now = [Tensor::i32("user_id", &[3])];
    assert_eq!(
        server
            .infer(FUSED, &now, &[])
            .expect("an answer")
            .i32("ordered_ids")
            .len(),
        5
    );

    // Several users in a request: one moment for all, or one for each.
    let users = Tensor::i32("user_id", &[5, 99_999, 17, 5]);
    for times in [
        &[1_700_000_000][..],
        &[1_700_000_000, 1_700_040_000, 5, 1_700_080_000],
    ] {
        let request = [users.clone(), Tensor::i32("timestamp", times)];
        assert_eq!(same(&server, &request).i32("ordered_ids").len(), 20);
    }
    let nobody = [Tensor::i32("user_id", &[]), Tensor::i32("timestamp", &[9])];
    assert!(same(&server, &nobody).i32("ordered_ids").is_empty());

    // A user who sees all there is: candidates run out, popular items fill up, then nothing is left.
    let mut seen = 0;
    loop {
        let answer = same(&server, &of_user(7)).i32("ordered_ids");
        // Beside one who has seen nothing, the row is padded.
        let request = [
            Tensor::i32("user_id", &[7, 8]),
            Tensor::i32("timestamp", &[1_700_000_000]),
        ];
        assert_eq!(same(&server, &request).i32("ordered_ids").len(), 10);
        if answer.is_empty() {
            break;
        }
        seen += answer.len();
        let items = answer.into_iter().map(i64::from).collect();
        mark_seen(&shop.valkey.url(1), &[(7, items)]);
    }
    assert!(
        seen > 20 && seen <= ITEMS as usize,
        "{seen} items were shown, of which 20 are candidates"
    );
}

#[test]
fn what_is_wrong_is_named() {
    let shop = shop(2000);
    let server = serve(&shop);
    let refused = |request: &[Tensor]| {
        let refused = server.infer(FUSED, request, &[]);
        refused.expect_err("a wrong request").to_string()
    };
    let user = || Tensor::i32("user_id", &[1]);
    let error = refused(&[user(), Tensor::i32("timestamp", &[1, 2, 3]), user()]);
    assert!(error.contains("user_id"), "{error}");
    let error = refused(&[
        Tensor::i32("user_id", &[1, 2]),
        Tensor::i32("timestamp", &[1, 2, 3]),
    ]);
    for part in ["timestamp", "3 elements for 2 users"] {
        assert!(error.contains(part), "{error}");
    }
    let error = refused(&[Tensor::f32("user_id", &[1.0])]);
    assert!(error.contains("user_id"), "{error}");
    let error = refused(&[Tensor::i32("user_id", &[1]).shaped(&[1, 1])]);
    assert!(error.contains("user_id"), "{error}");
    same(&server, &of_user(1));
}

#[test]
fn a_store_that_is_down_costs_the_deadline_at_most() {
    let shop = shop(20);
    let server = serve(&shop);
    let known = |user| {
        let answer = server.infer(FUSED, &of_user(user), &[]);
        answer.expect("an answer").i32("ordered_ids")
    };
    let degraded = |step: &str| {
        let name = format!("saker_{step}_degraded_total");
        let label = "model=\"fused_recommendation\"";
        server.metric(&name, label).expect("metrics").unwrap_or(0.0)
    };
    let counts = || ["feature_lookup", "bloom_filter"].map(degraded);
    // On a busy machine the store may be late before it hangs.
    let (late, before, _) = until(
        || (counts(), known(9), counts()),
        |(late, _, after)| late == after,
    );
    mark_seen(&shop.valkey.url(1), &[(9, vec![i64::from(before[0])])]);
    shop.valkey.freeze().expect("a hanging Valkey");
    let started = Instant::now();
    // A cold start, nothing taken out.
    assert_eq!(known(9).len(), 5);
    let took = started.elapsed();
    shop.valkey.thaw().expect("Valkey goes on");
    // The user's features and what the user has seen are asked together: one deadline of 20 ms.
    assert!(took < Duration::from_millis(500), "{took:?}");
    for (now, late) in counts().iter().zip(&late) {
        assert!(now > late, "{now} degraded, {late} before");
    }
    let log = server.log();
    for what in ["the store gives no features", "seen items are not known"] {
        let line = format!("model 'fused_recommendation': {what}");
        assert!(log.contains(&line), "{log}");
    }
    until(
        || known(9),
        |answer| !answer.contains(&before[0]) && answer[..4] == before[1..],
    );
}

#[test]
fn a_promotion_switches_both_ensembles() {
    let shop = shop(2000);
    shop.done(&["serve", "tiny", "--detach"]);
    let triton = Triton::new(&format!("127.0.0.1:{}", shop.ports[0]));
    let release = |ensemble: &str| {
        let answer = triton.infer(ensemble, &[triton_client::Tensor::int32("user_id", &[4])]);
        let answer = answer.expect("an answer");
        let named = answer.iter().find(|tensor| tensor.name == "release");
        named.expect("a release").texts().expect("a text").remove(0)
    };
    let releases = || [STEPS, FUSED].map(release);
    shop.done(&["assemble", "tiny", "--force", "--release", "second"]);
    let [first, fused] = releases();
    assert_eq!(first, fused);
    assert_ne!(first, "second");
    // While clients ask: `release` panics at a request that fails.
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut seen = BTreeMap::<String, usize>::new();
            while !stop.load(Ordering::Relaxed) {
                *seen.entry(release(FUSED)).or_default() += 1;
            }
            seen
        });
        for _ in 0..5 {
            shop.done(&["promote", "tiny", "--release", "second"]);
            assert_eq!(releases(), ["second", "second"]);
            shop.done(&["rollback", "tiny"]);
            assert_eq!(releases(), [first.clone(), first.clone()]);
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("no request fails")
    });
    let known: Vec<&str> = asked.keys().map(String::as_str).collect();
    assert_eq!(known.len(), 2, "{asked:?}");
    assert!(
        known.contains(&"second") && known.contains(&first.as_str()),
        "{asked:?}"
    );
    // A server that starts anew serves what was promoted last, in both.
    shop.done(&["promote", "tiny", "--release", "second"]);
    shop.done(&["stop", "tiny"]);
    shop.done(&["serve", "tiny", "--detach"]);
    assert_eq!(releases(), ["second", "second"]);
}

fn change(shop: &Shop, database: u8, words: &[&[u8]]) {
    command(&shop.valkey.url(database), words);
}

#[test]
fn an_answer_says_what_the_store_did_not_know() {
    let shop = shop(2000);
    let server = serve(&shop);
    let request = [
        Tensor::i32("user_id", &[7, 8, 9, 99_999, -1]),
        Tensor::i32("timestamp", &[1_700_000_000]),
    ];
    let masks = || {
        [STEPS, FUSED].map(|model| {
            let answer = server.infer(model, &request, &[]).expect("an answer");
            assert_eq!(answer.i32("ordered_ids").len(), 25);
            answer.i32("degraded")
        })
    };
    let both = |masks: [i32; 5]| [masks.to_vec(), masks.to_vec()];
    assert_eq!(
        masks(),
        both([0; 5]),
        "an absent user is known to be absent"
    );
    let seen = Prefixes::default().key(Method::Plain, 8).into_bytes();
    for (database, key) in [(0, features_key(7)), (1, seen)] {
        change(&shop, database, &[b"DEL", &key]);
        change(&shop, database, &[b"RPUSH", &key, b"of another type"]);
    }
    assert_eq!(masks(), both([1, 2, 0, 0, 0]));
    shop.valkey.kill();
    assert_eq!(masks(), both([3, 3, 3, 3, 0]));
    shop.valkey.restart().expect("a restart");
    until(&masks, |masks| *masks == both([1, 2, 0, 0, 0]));
}

#[test]
fn popular_items_that_the_release_does_not_know_are_left_out() {
    let shop = shop(2000);
    // More of them than are held of a set.
    for item in 100_000..100_500 {
        let item = i32::to_string(&item);
        for set in ["trending:global", "trending:cat_l1:0", "trending:cat_l1:1"] {
            let words: [&[u8]; 4] = [b"ZADD", set.as_bytes(), b"1e9", item.as_bytes()];
            change(&shop, 3, &words);
        }
    }
    let server = serve(&shop);
    for (user, left) in [(7, 7), (8, 5), (9, 2)] {
        let seen = (1..=i64::from(ITEMS) - left).collect();
        mark_seen(&shop.valkey.url(1), &[(user, seen)]);
        let answer = same(&server, &of_user(user as i32)).i32("ordered_ids");
        assert_eq!(answer.len(), 5.min(left as usize), "{answer:?}");
        let known = |item: &i32| (1..=ITEMS as i32).contains(item);
        assert!(answer.iter().all(known), "{answer:?}");
    }
}
