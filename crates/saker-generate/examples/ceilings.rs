//! How well the first item of a session can be guessed on a shop's last day, by how much is known of the visitor.
//!
//! `cargo run --release -p saker-generate --example ceilings`
//!
//! NDCG@10 of one relevant item in expectation: the sum over the ten ranked items of P(item | user, context) / log2(rank + 1),
//! averaged over visits. "The true preference" is the best that any model can reach.

use std::collections::HashMap;

use saker_generate::{Context, Result, Scale, Settings, Shop};

/// Visits of the last day that are measured, and users whose preferences make a mean.
const VISITS: usize = 4000;
const SAMPLE: usize = 1000;

fn main() -> Result<()> {
    let shop = Shop::new(&Settings::new(Scale::Small))?;
    let last = shop.settings().days - 1;
    let mut counts = vec![0.0; shop.items().len()];
    let mut hours = HashMap::new();
    for day in 0..last {
        for choice in shop.first_choices(day) {
            counts[choice.item] += 1.0;
            let key = (choice.context.hour, choice.context.device);
            hours.entry(key).or_insert(choice.context);
        }
    }
    let popular = best(&counts);
    let mut by_context: HashMap<Context, Vec<usize>> = HashMap::new();
    let mut by_kind: HashMap<(Context, &str, u8), Vec<usize>> = HashMap::new();
    let mut kinds: HashMap<(&str, u8), Vec<usize>> = HashMap::new();
    for (index, user) in shop.users().iter().enumerate() {
        kinds
            .entry((user.persona(), user.gender))
            .or_default()
            .push(index);
    }

    let mut names = [
        "popularity",
        "context",
        "context, persona and gender",
        "true preference",
    ]
    .map(|name| (name, 0.0));
    let visits = shop.first_choices(last);
    let step = (visits.len() / VISITS).max(1);
    let visits: Vec<_> = visits.into_iter().step_by(step).collect();
    for visit in &visits {
        let truth = shop.preference(visit.user, visit.context);
        let context = by_context
            .entry(visit.context)
            .or_insert_with(|| best(&shop.context_preference(visit.context, SAMPLE)));
        names[0].1 += ndcg(&truth, &popular);
        names[1].1 += ndcg(&truth, context);
        let user = &shop.users()[visit.user];
        let kind = (user.persona(), user.gender);
        let alike = by_kind
            .entry((visit.context, kind.0, kind.1))
            .or_insert_with(|| {
                let mut sum = vec![0.0; truth.len()];
                for &other in kinds[&kind].iter().take(100) {
                    let one = shop.preference(other, visit.context);
                    sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
                }
                best(&sum)
            });
        names[2].1 += ndcg(&truth, alike);
        names[3].1 += ndcg(&truth, &best(&truth));
    }
    let popularity = names[0].1;
    println!("{} visits of day {last}", visits.len());
    for (name, sum) in names {
        println!(
            "{name:<30} {:.4}  {:.2} x popularity",
            sum / visits.len() as f64,
            sum / popularity
        );
    }
    Ok(())
}

/// The ten items of the highest scores.
fn best(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(10);
    order
}

fn ndcg(truth: &[f64], ranked: &[usize]) -> f64 {
    ranked
        .iter()
        .enumerate()
        .map(|(rank, &item)| truth[item] / (rank as f64 + 2.0).log2())
        .sum()
}
