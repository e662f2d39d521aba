use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use saker_workflow::{WORKFLOW_FILE, Workflow, nvtabular};

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
        let mut names = chain.columns.clone();
        let mut operators = Vec::new();
        for (operator, state) in chain.operators.iter().zip(fitted) {
            names = operator.fitted_output_names(state, &names);
            let state = state.lines().join("\n  ");
            operators.push(match state.as_str() {
                "" => written(operator)?,
                state => format!("{}\n  {state}", written(operator)?),
            });
        }
        let columns = outputs.by_ref().take(names.len()).map(|output| {
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
