//! The preferences that a shop reports are those it draws from, and they hold what docs/retail.md promises.

use std::collections::HashMap;

use proptest::prelude::*;
use saker_generate::{Context, FirstChoice, Result, Scale, Settings, Shop};

/// Small enough that every item is chosen often.
fn settings() -> Settings {
    Settings {
        users: 800,
        items: 300,
        interactions: 120_000,
        days: 6,
        ..Settings::new(Scale::Small)
    }
}

fn all_first_choices(shop: &Shop) -> Vec<FirstChoice> {
    (0..shop.settings().days)
        .flat_map(|day| shop.first_choices(day))
        .collect()
}

/// Pearson's statistic per degree of freedom of what was chosen against what a preference, asked in `asked(context)`, expects:
/// about 1 when they agree.
fn misfit(shop: &Shop, choices: &[FirstChoice], asked: impl Fn(Context) -> Context) -> f64 {
    let mut expected = vec![0.0; shop.items().len()];
    let mut observed = vec![0.0; shop.items().len()];
    let mut one = vec![0.0; shop.items().len()];
    for choice in choices {
        shop.preference_into(choice.user, asked(choice.context), &mut one);
        for (sum, probability) in expected.iter_mut().zip(&one) {
            *sum += probability;
        }
        observed[choice.item] += 1.0;
    }
    let cells: Vec<f64> = expected
        .iter()
        .zip(&observed)
        .filter(|(expected, _)| **expected >= 5.0)
        .map(|(expected, observed): (&f64, &f64)| (observed - expected).powi(2) / expected)
        .collect();
    assert!(cells.len() > 200, "{} items are chosen often", cells.len());
    cells.iter().sum::<f64>() / cells.len() as f64
}

#[test]
fn sessions_begin_as_the_preferences_say() -> Result<()> {
    let shop = Shop::new(&settings())?;
    let choices = all_first_choices(&shop);
    // 300 cells: the statistic per cell has a deviation of sqrt(2 / 300) = 0.08.
    let fit = misfit(&shop, &choices, |context| context);
    assert!((0.7..1.3).contains(&fit), "{fit}");
    // The same test notices each part of the context.
    for wrong in [
        |context: Context| Context {
            device: (context.device + 1) % 3,
            ..context
        },
        |context: Context| Context {
            hour: (context.hour + 12) % 24,
            ..context
        },
        |context: Context| Context {
            weekend: !context.weekend,
            ..context
        },
    ] {
        let fit = misfit(&shop, &choices, wrong);
        assert!(fit > 1.5, "{fit}");
    }
    // And the evenings on phones alone, where few cells are left to hide in.
    let mobile: Vec<FirstChoice> = choices
        .into_iter()
        .filter(|choice| choice.context.device == 0)
        .collect();
    let fit = misfit(&shop, &mobile, |context| context);
    assert!((0.7..1.3).contains(&fit), "{fit}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn a_preference_is_a_distribution_over_what_is_launched(
        seed in 0..4_u64, user in 0..800_usize, device in 0..3, second in -200_000..1_000_000,
    ) {
        let shop = Shop::new(&Settings { seed, ..settings() })?;
        let context = shop.context(device, shop.settings().midnight(0) + second);
        let Some(context) = context else { panic!("device {device} is refused") };
        let preference = shop.preference(user, context);
        prop_assert!((preference.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (item, probability) in shop.items().iter().zip(&preference) {
            prop_assert_eq!(*probability > 0.0, item.launch <= context.day as i32);
        }
    }
}

#[test]
fn ids_are_sparse_and_lead_back_to_their_rows() -> Result<()> {
    let shop = Shop::new(&settings())?;
    for (index, user) in shop.users().iter().enumerate() {
        assert_eq!(shop.user_index(user.id), Some(index));
    }
    for (index, item) in shop.items().iter().enumerate() {
        assert_eq!(shop.item_index(item.id), Some(index));
    }
    let known = |id: &i32| shop.user_index(*id).is_some();
    let range = 1_000_000..1_003_000;
    assert_eq!(range.clone().filter(known).count(), 800);
    for stranger in [i32::MIN, -1, 0, 999_999, i32::MAX] {
        assert_eq!(
            (shop.user_index(stranger), shop.item_index(stranger)),
            (None, None)
        );
    }
    assert!(shop.context(3, 0).is_none() && shop.context(-1, 0).is_none());
    Ok(())
}

/// NDCG@10 of one item that is chosen with the probabilities `truth`.
fn ndcg(truth: &[f64], scores: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let ranked = order.into_iter().take(10).enumerate();
    ranked
        .map(|(rank, item)| truth[item] / (rank as f64 + 2.0).log2())
        .sum()
}

#[test]
fn context_alone_beats_popularity_and_yesterday_beats_last_week() -> Result<()> {
    let shop = Shop::new(&Settings {
        users: 2000,
        interactions: 60_000,
        ..Settings::new(Scale::Small)
    })?;
    let last = shop.settings().days - 1;
    let mut popularity = vec![0.0; shop.items().len()];
    for choice in (0..last).flat_map(|day| shop.first_choices(day)) {
        popularity[choice.item] += 1.0;
    }
    let mut by_context: HashMap<Context, Vec<f64>> = HashMap::new();
    let [
        mut popular,
        mut context,
        mut week_old,
        mut day_old,
        mut best,
    ] = [0.0; 5];
    for choice in shop.first_choices(last).into_iter().step_by(4) {
        let truth = shop.preference(choice.user, choice.context);
        let mean = by_context
            .entry(choice.context)
            .or_insert_with(|| shop.context_preference(choice.context, 200));
        let of_day = |day| {
            shop.preference(
                choice.user,
                Context {
                    day,
                    ..choice.context
                },
            )
        };
        popular += ndcg(&truth, &popularity);
        context += ndcg(&truth, mean);
        week_old += ndcg(&truth, &of_day(last - 7));
        day_old += ndcg(&truth, &of_day(last - 1));
        best += ndcg(&truth, &truth);
    }
    assert!(context > 1.6 * popular, "{context} {popular}");
    assert!(context < 0.7 * best, "{context} {best}");
    assert!(
        day_old > 0.98 * best && week_old < 0.95 * best,
        "{week_old} {day_old} {best}"
    );
    Ok(())
}

#[test]
fn some_users_and_items_come_late_and_never_too_early() -> Result<()> {
    let shop = Shop::new(&settings())?;
    let mut late = [0; 2];
    for day in 0..shop.settings().days {
        for choice in shop.first_choices(day) {
            let (user, item) = (&shop.users()[choice.user], &shop.items()[choice.item]);
            assert!(user.signup <= day as i32, "user {}", user.id);
            assert!(item.launch <= day as i32, "item {}", item.id);
            late[0] += usize::from(user.signup >= 4);
            late[1] += usize::from(item.launch >= 4);
        }
    }
    assert!(late.iter().all(|&choices| choices > 50), "{late:?}");
    Ok(())
}

/// User, device, time, and the best items with their probabilities.
type Golden = (i32, i32, i32, Vec<(i32, f64)>);

/// A change of these numbers is a new version of the model: `MODEL` in manifest.rs.
#[test]
fn the_model_is_the_one_of_its_version() -> Result<()> {
    let golden: Vec<Golden> =
        serde_json::from_str(include_str!("data/preferences.json")).unwrap_or_default();
    assert_eq!(golden.len(), 4, "tests/data/preferences.json");
    let shop = Shop::new(&Settings::new(Scale::Small))?;
    for (user, device, timestamp, best) in golden {
        let found = shop.user_index(user).zip(shop.context(device, timestamp));
        let Some((user, context)) = found else {
            panic!("user {user}, device {device}")
        };
        let preference = shop.preference(user, context);
        for (id, probability) in best {
            let item = shop.item_index(id);
            let is = item.map_or(0.0, |item| preference[item]);
            assert!(
                (is - probability).abs() < 1e-6,
                "item {id}: {is}, {probability} in the golden"
            );
        }
    }
    Ok(())
}
