//! What `saker evaluate` prints: a table of the methods, notes on them, and the comparison with a release.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use saker_models::verdict::Verdict;
use saker_train::evaluate::{Evaluation, MethodMetrics};

/// The comparison with a release.
pub(super) fn comparison(verdict: &Verdict) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "NDCG@10 of the ranked list",
        "new",
        "release",
        "difference",
        "",
    ]);
    for part in &verdict.parts {
        let [new, old] = part.ndcg_10;
        table.add_row([
            part.part.clone(),
            format!("{new:.4}"),
            format!("{old:.4}"),
            format!("{:+.4} ± {:.4}", new - old, part.error),
            if part.worse { "worse" } else { "" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A row of metrics for each method.
pub(super) fn of_methods(methods: &[MethodMetrics]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "",
        "NDCG@10",
        "± requests",
        "± seeds",
        "against the row above",
        "hit@10",
        "recall@10",
        "recall@100",
        "recall@300",
        "AUC",
    ]);
    for method in methods {
        let list = &method.list;
        let or_dash = |number: Option<f64>| number.map_or("–".to_owned(), |n| format!("{n:.4}"));
        let above = method.above.map_or("–".to_owned(), |above| {
            format!(
                "{:+.4} ({:+.4} to {:+.4})",
                above.mean, above.low, above.high
            )
        });
        let first = [
            method.method.clone(),
            format!("{:.4}", list.ndcg_10),
            or_dash(method.ndcg_10_error),
            or_dash(method.ndcg_10_seeds),
            above,
        ];
        let numbers = [
            list.hit_10,
            list.recall_10,
            list.recall_100,
            list.recall_300,
            method.auc,
        ];
        let cells = numbers.map(|number| format!("{number:.4}"));
        table.add_row(first.into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The scope of the evaluation, the settings of the baselines, and the quality of the probabilities, as a paragraph.
pub(super) fn notes(evaluation: &Evaluation) -> String {
    let tuned = &evaluation.tuned;
    let days = |days: Option<f64>| days.map_or("none".to_owned(), |days| format!("{days} days"));
    let mut notes = format!(
        "{} part, {} of {} users with held-out items, models of {}. ± is the standard error of the mean; the row above is \
         compared on the same requests, with an interval of 95 % by a paired bootstrap. Retrieval as served asks the index for {} \
         candidates and takes out what the seen filter holds; the ranked list orders what is left, so its recall ends with it. AUC is \
         over retrieval's unseen candidates for every method. Chosen on the validation part: neighbours k = {}, with recent items \
         weighted k = {} and half-life {} interactions; counting table of {}, half-life {}, window {} h",
        evaluation.split,
        evaluation.users,
        evaluation.users_held,
        match evaluation.seeds {
            1 => "one seed".to_owned(),
            seeds => format!("{seeds} seeds"),
        },
        evaluation.retrieval_topk,
        tuned.k,
        tuned.recency_k,
        tuned.recency_half_life,
        tuned.context.column,
        days(tuned.context.half_life_days),
        tuned.context.hours,
    );
    if let Some((regularization, confidence)) = tuned.ials {
        notes.push_str(&format!(
            "; iALS regularization {regularization}, confidence {confidence}"
        ));
    }
    match (tuned.ease, tuned.ease_recency) {
        (Some(plain), Some((ridge, half_life))) => notes.push_str(&format!(
            "; EASE λ = {plain}, with recent items weighted λ = {ridge} and half-life {half_life} interactions."
        )),
        _ => notes.push_str(". The catalogue is too large for EASE."),
    }
    notes.push_str(&format!(
        " Log loss of the ranker on the candidates: {:.4}.",
        evaluation.ranker_log_loss
    ));
    if let Some(of) = &evaluation.classification {
        notes.push_str(&format!(
            " Ranker on held-out positives and negatives sampled as in training ({} rows, {:.1} % positive): AUC {:.4}, \
             log loss {:.4} ({:.4} for the base rate), expected calibration error {:.4}.",
            of.rows,
            100.0 * of.base_rate,
            of.auc,
            of.log_loss,
            of.base_log_loss,
            of.calibration_error
        ));
    }
    notes
}
