//! Rename: other names for the same columns.

use serde::{Deserialize, Serialize};
#[cfg(feature = "tables")]
use serde_json::json;

#[cfg(feature = "tables")]
use super::Fitted;
#[cfg(feature = "tables")]
use super::transform::GreatestCode;
use super::transform::{Context, OutputKind, Transform};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::nvtabular::{Export, Form, Part, Read};
use crate::variable::Variable;

/// Renames the chain's columns: to `name` (one column) or by adding `postfix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The new name of a single column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Text to add to every name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postfix: Option<String>,
}

impl Rename {
    /// To a new name, of a single column.
    pub fn to(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            postfix: None,
        }
    }
}

impl Transform for Rename {
    fn validate(&self, inputs: &[String]) -> Result<(), String> {
        match (&self.name, &self.postfix) {
            (Some(_), None) if inputs.len() != 1 => {
                Err("name renames one column; use postfix for several".to_owned())
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("give either name or postfix".to_owned()),
        }
    }

    fn output_names(&self, inputs: &[String]) -> Vec<String> {
        match (&self.name, &self.postfix) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(postfix)) => inputs.iter().map(|n| format!("{n}{postfix}")).collect(),
            (None, None) => inputs.to_vec(),
        }
    }

    fn of_row_alone(&self) -> bool {
        true
    }

    fn kind(&self) -> OutputKind {
        OutputKind::Unchanged
    }

    fn compile(&self, columns: &[Variable], _: &Context<'_>) -> Result<Vec<Variable>, Error> {
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let names = self.output_names(&names).into_iter();
        let renamed = names.zip(columns).map(|(name, column)| Variable {
            name,
            ..column.clone()
        });
        Ok(renamed.collect())
    }

    #[cfg(feature = "tables")]
    fn greatest_codes(&self, _: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
        let (names, codes): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        self.output_names(&names).into_iter().zip(codes).collect()
    }

    #[cfg(feature = "tables")]
    fn nvtabular_names() -> &'static [&'static str] {
        &["Rename"]
    }

    #[cfg(feature = "tables")]
    fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
        // The schema tells what a Python function made of the names, too.
        let outputs = node.output_names();
        if outputs.len() != node.names.len() {
            return Err(node.fail(&format!(
                "its output_schema names {} columns",
                outputs.len()
            )));
        }
        let parts = node.names.iter().zip(&outputs);
        let parts = parts
            .map(|(column, name)| Part::new(vec![column.clone()], Self::to(name), Fitted::Nothing));
        Ok(parts.collect())
    }

    #[cfg(feature = "tables")]
    fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
        let params = json!({ "f": null, "name": self.name, "postfix": self.postfix });
        Ok(Form::new("nvtabular.ops.rename.Rename").params(params))
    }
}
