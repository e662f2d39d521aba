//! Reports in HTML, such as `models/report.html` of an evaluation. Each is one file that loads no scripts, fonts or other content.

pub mod simulation;
mod svg;

use std::fmt::Write;

use saker_models::training_run::Line;
use saker_train::evaluate::{Classification, Evaluation, MethodMetrics, Population};
use saker_train::progress::Stage;

use svg::{Bars, Lines, Series, escape, number};

/// The page's HTML.
pub fn html(name: &str, description: &str, evaluation: &Evaluation, epochs: &[Line]) -> String {
    let mut page = head(&format!("{name}: evaluation"), description);
    let _ = writeln!(page, "<p>{}</p>", scope(evaluation));
    page.push_str(&tiles(evaluation));
    section(&mut page, "All users");
    page.push_str(&table("", &evaluation.methods));
    page.push_str("<p class=\"quiet\">What a user has met before is taken out of every list, for every method. The \
         ranked list orders the candidates as served, so its recall ends with them. AUC is over the retrieved candidates, for \
         every method. ± is the standard error of the mean over the requests; the last column is the difference of NDCG@10 to \
         the row above on the same requests, with its interval of 95 % by a paired bootstrap.</p>\n");
    page.push_str("<div class=\"plots\">");
    plot(
        &mut page,
        "Recall by length of the list",
        &recall_curve(&evaluation.methods),
    );
    if let Some(classification) = &evaluation.classification {
        plot(
            &mut page,
            "Calibration of the ranker",
            &calibration(classification),
        );
    }
    page.push_str("</div>\n");
    if let Some(classification) = &evaluation.classification {
        let _ = writeln!(
            page,
            "<p class=\"quiet\">{}</p>",
            calibration_note(classification)
        );
    }
    section(&mut page, "Parts of the requests");
    for population in &evaluation.populations {
        page.push_str(&table(&caption(population), &population.methods));
    }
    if !evaluation.groups.is_empty() {
        section(&mut page, "NDCG@10 by context");
        page.push_str("<div class=\"plots\">");
        for (name, groups) in &evaluation.groups {
            let names: Vec<String> = shown(&evaluation.methods)
                .map(|method| method.method.clone())
                .collect();
            let groups = groups.iter().map(|group| {
                let heights = names
                    .iter()
                    .map(|name| group.ndcg_10.get(name).copied().unwrap_or(0.0));
                (group.value.clone(), heights.collect())
            });
            let bars = Bars {
                x_label: name.clone(),
                groups: groups.collect(),
                names: names.clone(),
            };
            plot(&mut page, &format!("By {name}"), &bars.svg());
        }
        page.push_str("</div>\n");
    }
    if !epochs.is_empty() {
        section(&mut page, "Training");
        page.push_str("<div class=\"plots\">");
        for stage in [Stage::Towers, Stage::Ranker] {
            training(&mut page, stage, epochs);
        }
        page.push_str("</div>\n");
    }
    page.push_str("</body></html>\n");
    page
}

/// A page up to its first section.
fn head(title: &str, description: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0}</title><style>{1}</style></head><body>\n\
         <h1>{0}</h1><p class=\"quiet\">{2}</p>\n",
        escape(title),
        include_str!("style.css"),
        escape(description),
    )
}

fn scope(evaluation: &Evaluation) -> String {
    let users = if evaluation.users < evaluation.users_held {
        format!(
            "{} of {} users with held-out items, evenly spread",
            evaluation.users, evaluation.users_held
        )
    } else {
        format!("{} users", evaluation.users)
    };
    format!(
        "The {} part, {users}; {} candidates from retrieval.",
        evaluation.split, evaluation.retrieval_topk
    )
}

fn section(page: &mut String, title: &str) {
    let _ = writeln!(page, "<h2>{title}</h2>");
}

fn plot(page: &mut String, title: &str, svg: &str) {
    let _ = write!(
        page,
        "<div class=\"plot\"><h3>{}</h3>{svg}</div>",
        escape(title)
    );
}

fn find<'a>(methods: &'a [MethodMetrics], name: &str) -> Option<&'a MethodMetrics> {
    methods.iter().find(|method| method.method == name)
}

fn tiles(evaluation: &Evaluation) -> String {
    let mut tiles = String::from("<div class=\"tiles\">");
    let mut tile = |value: String, what: &str| {
        let _ = write!(tiles, "<div class=\"tile\"><b>{value}</b>{what}</div>");
    };
    let methods = &evaluation.methods;
    let ranked = find(methods, "ranked list");
    if let Some(ranked) = ranked {
        tile(number(ranked.list.ndcg_10), "NDCG@10 of the ranked list");
        tile(number(ranked.list.hit_10), "users with a hit in ten");
    }
    if let Some(retrieval) = find(methods, "retrieval") {
        tile(number(retrieval.list.recall_300), "recall@300 of retrieval");
    }
    if let (Some(ranked), Some(popular)) = (ranked, find(methods, "popularity")) {
        let times = ranked.list.ndcg_10 / popular.list.ndcg_10;
        tile(format!("{times:.2} ×"), "popularity's NDCG@10");
    }
    for (name, what) in [
        ("warm users", "of the best possible NDCG@10, warm users"),
        (
            "unknown users",
            "of the best possible NDCG@10, unknown users",
        ),
    ] {
        let population = evaluation.populations.iter().find(|of| of.name == name);
        let methods = population.map_or(&[][..], |population| &population.methods);
        if let (Some(ranked), Some(best)) =
            (find(methods, "ranked list"), find(methods, "best possible"))
        {
            let share = 100.0 * ranked.list.ndcg_10 / best.list.ndcg_10;
            tile(format!("{share:.0} %"), what);
        }
    }
    if let Some(classification) = &evaluation.classification {
        tile(number(classification.auc), "AUC of the ranker");
        tile(
            number(classification.calibration_error),
            "expected calibration error",
        );
    }
    tiles.push_str("</div>\n");
    tiles
}

/// A column's heading, and the function that reads its value.
type Column = (&'static str, fn(&MethodMetrics) -> f64);

fn table(caption: &str, methods: &[MethodMetrics]) -> String {
    let columns: [Column; 6] = [
        ("NDCG@10", |method| method.list.ndcg_10),
        ("hit@10", |method| method.list.hit_10),
        ("recall@10", |method| method.list.recall_10),
        ("recall@100", |method| method.list.recall_100),
        ("recall@300", |method| method.list.recall_300),
        ("AUC", |method| method.auc),
    ];
    let mut table = String::new();
    if !caption.is_empty() {
        let _ = write!(table, "<p class=\"quiet\">{caption}</p>");
    }
    table.push_str("<div class=\"scroll\"><table><thead><tr><th></th>");
    for (name, _) in columns {
        let _ = write!(table, "<th>{name}</th>");
    }
    table.push_str("<th>± requests</th><th>± seeds</th><th>NDCG@10 against the row above</th>");
    table.push_str("</tr></thead><tbody>");
    // No method beats the best possible answer, so the best of the others is marked.
    let others = || {
        methods
            .iter()
            .filter(|method| method.method != "best possible")
    };
    for method in methods {
        let _ = write!(table, "<tr><td>{}</td>", escape(&method.method));
        for (_, value) in columns {
            let best = others().map(value).fold(f64::MIN, f64::max);
            let is_best = value(method) == best && best > 0.0;
            let class = if is_best { " class=\"best\"" } else { "" };
            let _ = write!(table, "<td{class}>{:.4}</td>", value(method));
        }
        for error in [method.ndcg_10_error, method.ndcg_10_seeds] {
            let error = error.map_or("–".to_owned(), |error| format!("{error:.4}"));
            let _ = write!(table, "<td>{error}</td>");
        }
        let above = method.above.map_or("–".to_owned(), |above| {
            format!(
                "{:+.4} ({:+.4} to {:+.4})",
                above.mean, above.low, above.high
            )
        });
        let _ = write!(table, "<td>{above}</td></tr>");
    }
    table.push_str("</tbody></table></div>\n");
    table
}

fn caption(population: &Population) -> String {
    format!(
        "<b>{}</b>: {}; {} requests",
        escape(&population.name),
        escape(&population.description),
        population.users
    )
}

/// The methods that have their own colour.
fn shown(methods: &[MethodMetrics]) -> impl Iterator<Item = &MethodMetrics> {
    methods.iter().filter(|method| {
        ["retrieval", "ranked list", "popularity", "best possible"]
            .contains(&method.method.as_str())
    })
}

fn recall_curve(methods: &[MethodMetrics]) -> String {
    let series = methods.iter().map(|method| Series {
        name: method.method.clone(),
        points: method
            .recall_at
            .iter()
            .map(|&(length, recall)| (length as f64, recall))
            .collect(),
        reference: false,
    });
    let lines = Lines {
        x_label: "items in the list",
        logarithmic: true,
        from_zero: true,
        series: series.collect(),
    };
    lines.svg()
}

fn calibration(classification: &Classification) -> String {
    let bins = &classification.bins;
    let most = bins
        .iter()
        .map(|bin| bin.probability.max(bin.positives))
        .fold(0.0, f64::max);
    let lines = Lines {
        x_label: "probability given",
        logarithmic: false,
        from_zero: true,
        series: vec![
            Series {
                name: "share of positives".into(),
                points: bins
                    .iter()
                    .map(|bin| (bin.probability, bin.positives))
                    .collect(),
                reference: false,
            },
            Series {
                name: "perfect".into(),
                points: vec![(0.0, 0.0), (most, most)],
                reference: true,
            },
        ],
    };
    lines.svg()
}

fn calibration_note(classification: &Classification) -> String {
    format!(
        "The ranker as a classifier, on {} rows: held-out positives, each with negatives sampled as in training. Log loss \
         {:.4} nats ({:.4} for always answering the base rate). Its probabilities are for this mixture, of which {:.1} % \
         are positive; for another base rate q the odds p/(1−p) are to be multiplied by q/(1−q) · {:.3}.",
        classification.rows,
        classification.log_loss,
        classification.base_log_loss,
        100.0 * classification.base_rate,
        (1.0 - classification.base_rate) / classification.base_rate,
    )
}

fn training(page: &mut String, stage: Stage, epochs: &[Line]) {
    let of_stage: Vec<&Line> = epochs.iter().filter(|line| line.model == stage).collect();
    if of_stage.is_empty() {
        return;
    }
    let curve = |name: &str, value: &dyn Fn(&Line) -> f64| Series {
        name: name.to_owned(),
        points: of_stage
            .iter()
            .map(|line| (line.epoch.epoch as f64, value(line)))
            .collect(),
        reference: false,
    };
    let metric = |name: &'static str| {
        curve(name, &move |line: &Line| {
            line.epoch.validation.get(name).copied().unwrap_or(f64::NAN)
        })
    };
    let lines = |series: Vec<Series>, from_zero| {
        Lines {
            x_label: "epoch",
            logarithmic: false,
            from_zero,
            series,
        }
        .svg()
    };
    let name = stage.name();
    let loss = curve("training loss", &|line| line.epoch.loss);
    plot(
        page,
        &format!("Loss of the {name}"),
        &lines(vec![loss], false),
    );
    let metrics = vec![metric("ndcg@10"), metric("recall@10"), metric("recall@100")];
    plot(
        page,
        &format!("Validation metrics of the {name}"),
        &lines(metrics, true),
    );
}
