use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use saker_workflow::{Fitted, WORKFLOW_FILE, Workflow, nvtabular};

/// Arguments of `saker workflow`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    saker workflow show .saker/movielens/workflows/user\n  \
    python scripts/export-nvtabular saved_by_23.8 exported && saker workflow import exported user\n  \
    saker workflow export user for_nvtabular")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Convert a workflow that NVTabular saved (graph.json), or that scripts/export-nvtabular exported, to Saker's format
    Import(Folders),
    /// Write a workflow of Saker as NVTabular after 23.8 saves it (graph.json)
    Export(Folders),
    /// Show columns, operators with their fitted values, and outputs
    Show {
        /// Folder of a workflow of Saker (workflow.json) or NVTabular (graph.json)
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[derive(clap::Args)]
struct Folders {
    /// Folder to read
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Folder to write; it must not exist or be empty
    #[arg(value_name = "TO")]
    to: PathBuf,
}

/// Converts and shows workflows.
pub(super) fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Import(folders) => {
            let workflow = nvtabular::import(&folders.from)?;
            vacant(&folders.to)?;
            workflow.save(&folders.to)?;
            println!(
                "{} made of {}",
                folders.to.join(WORKFLOW_FILE).display(),
                folders.from.display()
            );
        }
        Action::Export(folders) => {
            let workflow = Workflow::load(&folders.from)?;
            vacant(&folders.to)?;
            nvtabular::export(&workflow, &folders.to)?;
            println!(
                "{} made of {}",
                folders.to.join(nvtabular::GRAPH_FILE).display(),
                folders.from.display()
            );
        }
        Action::Show { folder } => {
            let workflow = if folder.join(nvtabular::GRAPH_FILE).exists() {
                nvtabular::import(folder)?
            } else {
                Workflow::load(folder)?
            };
            println!("{}", table(&workflow)?);
        }
    }
    Ok(())
}

/// Refuses a folder with files in it: the files of two workflows must not mix.
fn vacant(folder: &Path) -> Result<()> {
    if folder.exists() {
        let mut entries =
            std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        if entries.next().is_some() {
            bail!("{} is not empty; name a new folder", folder.display());
        }
    }
    Ok(())
}

/// One row per chain: its inputs, operators and outputs.
fn table(workflow: &Workflow) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["columns", "operators", "outputs"]);
    for stage in workflow.before() {
        add_rows(&mut table, stage)?;
    }
    add_rows(&mut table, workflow)?;
    Ok(table)
}

/// The rows of one definition.
fn add_rows(table: &mut Table, workflow: &Workflow) -> Result<()> {
    let definition = workflow.definition();
    for operator in &definition.table {
        table.add_row(["(the table)".to_owned(), written(operator)?, String::new()]);
    }
    let mut outputs = workflow.outputs().iter();
    for (chain, fitted) in definition.chains.iter().zip(workflow.fitted()) {
        let mut given = chain.output_names()?.len();
        let mut operators = Vec::new();
        for (operator, state) in chain.operators.iter().zip(fitted) {
            if let Fitted::Columns { kept } = state {
                given = kept.len();
            }
            let state = fitted_numbers(state);
            operators.push(match state.as_str() {
                "" => written(operator)?,
                state => format!("{}\n  {state}", written(operator)?),
            });
        }
        let columns = outputs.by_ref().take(given).map(|output| {
            let list = if output.list { "list of " } else { "" };
            let codes = output
                .cardinality
                .map_or(String::new(), |n| format!(", {n} codes"));
            let tags = match output.tags.as_slice() {
                [] => String::new(),
                tags => format!(", tags {}", tags.join(" ")),
            };
            let kind = if output.datetime {
                "datetime".to_owned()
            } else {
                output.dtype.to_string()
            };
            format!("{}: {list}{kind}{codes}{tags}", output.name)
        });
        let columns: Vec<String> = columns.collect();
        table.add_row([
            chain.columns.join("\n"),
            operators.join("\n"),
            columns.join("\n"),
        ]);
    }
    Ok(())
}

/// An operator as in a definition, without the braces: `Bucketize boundaries=[18.0,25.0]`.
fn written(operator: &impl serde::Serialize) -> Result<String> {
    let serde_json::Value::Object(mut fields) = serde_json::to_value(operator)? else {
        bail!("an operator is not written as a table");
    };
    let name = fields.remove("op").unwrap_or_default();
    let parameters = fields.iter().map(|(key, value)| format!(" {key}={value}"));
    Ok(name.as_str().unwrap_or_default().to_owned() + &parameters.collect::<String>())
}

/// The fitted values, in one or a few lines.
fn fitted_numbers(fitted: &Fitted) -> String {
    let numbers = |what: &[(&str, &BTreeMap<String, f64>)]| {
        let columns = what
            .first()
            .into_iter()
            .flat_map(|(_, columns)| columns.keys());
        let lines = columns.map(|column| {
            let parts = what.iter().map(|(name, columns)| {
                format!(
                    "{name} {}",
                    columns.get(column).copied().unwrap_or(f64::NAN)
                )
            });
            format!("{column}: {}", parts.collect::<Vec<_>>().join(", "))
        });
        lines.collect::<Vec<_>>().join("\n  ")
    };
    let lines = |lines: Vec<String>| lines.join("\n  ");
    match fitted {
        Fitted::Nothing => String::new(),
        Fitted::Moments { means, stds } => numbers(&[("mean", means), ("std", stds)]),
        Fitted::Extremes { mins, maxs } => numbers(&[("min", mins), ("max", maxs)]),
        Fitted::Medians { medians } => numbers(&[("median", medians)]),
        Fitted::Lengths { lengths } => lines(
            (lengths.iter())
                .map(|(column, (least, most))| format!("{column}: {least} to {most} elements"))
                .collect(),
        ),
        Fitted::Vocabularies(vocabularies) => lines(
            (vocabularies.iter())
                .map(|v| format!("{}: {} values, codes from {}", v.name(), v.len(), v.start()))
                .collect(),
        ),
        Fitted::Groups(tables) => lines((tables.iter()).map(|table| keys(table)).collect()),
        Fitted::Target {
            tables,
            mean,
            folds,
        } => {
            let mut all: Vec<String> = tables.iter().map(|table| keys(table)).collect();
            all.push(format!("mean {mean}"));
            if !folds.is_empty() {
                all.push("and by fold".to_owned());
            }
            lines(all)
        }
        Fitted::Ranges { ranges } => lines(
            (ranges.iter())
                .map(|(column, (least, most))| format!("{column}: {least} to {most}"))
                .collect(),
        ),
        Fitted::Statistics { columns } => lines(
            (columns.iter())
                .map(|(column, found)| {
                    let number = |x: Option<f64>| x.map_or("none".to_owned(), |x| x.to_string());
                    let distinct = found
                        .cardinality
                        .map_or(String::new(), |n| format!(", {n} distinct"));
                    format!(
                        "{column}: {} to {}, mean {}, std {}, {} % missing{distinct}",
                        number(found.min),
                        number(found.max),
                        number(found.mean),
                        number(found.std),
                        found.per_nan
                    )
                })
                .collect(),
        ),
        Fitted::Columns { kept } => format!("keeps {}", kept.join(", ")),
        Fitted::Similarity(left, right) => {
            format!("{} and {} rows of features", left.rows(), right.rows())
        }
        Fitted::External(table) => format!("{} rows", table.num_rows()),
    }
}

fn keys(table: &saker_workflow::GroupTable) -> String {
    let names: Vec<&str> = table.keys().iter().map(|(name, _)| name.as_str()).collect();
    let rows = table.keys().first().map_or(0, |(_, keys)| keys.len());
    format!("{}: {rows} keys", names.join(", "))
}
