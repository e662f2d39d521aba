//! Recent items, the top category and the popularity sets.

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::popularity::{self, Set};
use saker_store::recent::{self, Event};
use saker_store::{Pipeline, Reply};
use saker_testing::valkey::Valkey;

use crate::support::{command, connect};

const NOW: i64 = 1_777_636_800_123_456;
const HOUR: i64 = 60 * 60 * 1_000_000;

#[test]
fn the_top_category_follows_the_events() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut connection = connect(&valkey.url(1));
    let event = |item, time_us| Event {
        user: 7,
        item,
        time_us,
    };
    let events = [
        event(11, NOW - HOUR),
        event(12, NOW - 2 * HOUR),
        event(21, NOW - 30 * HOUR),
        event(22, NOW - 29 * HOUR),
        event(31, NOW - 200 * HOUR),
        // The same item with an older time that arrives later: the newer time stays.
        event(11, NOW - 3 * HOUR),
    ];
    recent::add(&mut connection, &events, NOW).expect("written");
    let read = recent::read(&mut connection, &[7, 8], NOW).expect("read");
    assert_eq!(read, [vec![(12, NOW - 2 * HOUR), (11, NOW - HOUR)], vec![]]);
    let key = recent::key(7);
    // Entries older than seven days are gone.
    assert_eq!(command(&mut connection, &["ZCARD", &key]), Reply::Int(4));
    assert!(matches!(command(&mut connection, &["TTL", &key]), Reply::Int(left) if left > 600_000));

    let mut online = connect(&valkey.url(0));
    let all = ["age", "top_category"];
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        all,
    );
    let mut writer = Writer::new(&mut online, view.clone(), None);
    for user in [7, 8] {
        let values = [Some(Value::Int32(44)), Some(Value::Int32(9))];
        writer
            .write(&EntityId::Int32(user), &values, Timestamp::from_micros(0))
            .expect("written");
    }
    writer.finish().expect("written");
    let top = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        ["top_category"],
    );
    let category = |item: i64| i32::try_from(item / 10).ok();
    let updated =
        recent::update_top_category(&mut connection, &mut online, &top, &[7, 8], NOW, category)
            .expect("updated");
    assert_eq!(updated, [(7, 1)]);
    let mut pipeline = Pipeline::new();
    for user in [7, 8] {
        view.read(&EntityId::Int32(user), &mut pipeline);
    }
    let replies = online
        .run(&pipeline, std::time::Duration::from_secs(5))
        .expect("replies");
    // Age is kept; a user without recent items keeps the old category.
    for (reply, expected) in replies.iter().zip([1, 9]) {
        let row = view.row(reply).expect("a row").expect("a user");
        assert_eq!(row.value(0).expect("a value"), Some(Value::Int32(44)));
        assert_eq!(row.value(1).expect("a value"), Some(Value::Int32(expected)));
    }
}

#[test]
fn popularity_sets_are_replaced_and_read_best_first() {
    let valkey = Valkey::start().expect("a running Valkey");
    let mut connection = connect(&valkey.url(3));
    assert_eq!(
        popularity::read(&mut connection, 10).expect("nothing"),
        popularity::Popular::default()
    );
    popularity::write(&mut connection, Set::Global, &[(1, 5), (99, 100)]).expect("written");
    let many: Vec<(i64, u64)> = (0..2500).map(|item| (item, item as u64 + 1)).collect();
    popularity::write(&mut connection, Set::Global, &many).expect("written");
    popularity::write(
        &mut connection,
        Set::CategoryL1(4),
        &[(7, 1), (8, 3), (9, 2)],
    )
    .expect("written");
    popularity::write(&mut connection, Set::CategoryL2(40), &[(7, 1)]).expect("written");
    command(
        &mut connection,
        &["ZADD", "trending:cat_l1:4", "9", "not an item"],
    );
    let popular = popularity::read(&mut connection, 3).expect("read");
    assert_eq!(popular.global, [2499, 2498, 2497]);
    assert_eq!(popular.by_category_l1.len(), 1);
    assert_eq!(popular.by_category_l1[&4], [8, 9]);
    assert_eq!(
        popular.of_category(Some(4)).collect::<Vec<_>>(),
        [8, 9, 2499, 2498, 2497]
    );
    assert_eq!(popular.of_category(Some(5)).count(), 3);
}
