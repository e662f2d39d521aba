//! AddMetadata and its kinds: what readers of a workflow are told of its columns.

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
use crate::parameters::Properties;
use crate::variable::Variable;

/// Tells readers of the workflow something about the columns, which pass through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddMetadata {
    /// Tags such as `user`, `item`, `id`, `context`, `target`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Properties by name.
    #[serde(default, skip_serializing_if = "Properties::is_empty")]
    pub properties: Properties,
}

/// AddMetadata with tags alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddTags {
    /// The tags.
    pub tags: Vec<String>,
}

/// AddMetadata with properties alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddProperties {
    /// Properties by name.
    pub properties: Properties,
}

/// AddMetadata with the tags `id` and `user`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagAsUserID {}

/// AddMetadata with the tags `id` and `item`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagAsItemID {}

/// AddMetadata with the tag `user`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagAsUserFeatures {}

/// AddMetadata with the tag `item`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagAsItemFeatures {}

/// An operator that hands its columns on. NVTabular's kinds of AddMetadata are read as AddMetadata, and written so.
macro_rules! tells {
    ($operator:ident, $self:ident => $metadata:expr $(, $more:item)*) => {
        impl Transform for $operator {
            $($more)*

            fn of_row_alone(&self) -> bool {
                true
            }

            fn kind(&self) -> OutputKind {
                OutputKind::Unchanged
            }

            fn metadata(&$self) -> (Vec<String>, Properties) {
                $metadata
            }

            fn compile(
                &self,
                columns: &[Variable],
                _: &Context<'_>,
            ) -> Result<Vec<Variable>, Error> {
                Ok(columns.to_vec())
            }

            #[cfg(feature = "tables")]
            fn greatest_codes(&self, _: &Fitted, columns: Vec<GreatestCode>) -> Vec<GreatestCode> {
                columns
            }

            #[cfg(feature = "tables")]
            fn nvtabular_names() -> &'static [&'static str] {
                &[stringify!($operator)]
            }

            #[cfg(feature = "tables")]
            fn import(node: &Read<'_>) -> Result<Vec<Part>, Error> {
                node.each(|_| {
                    let properties: Option<Properties> = node.param("properties")?;
                    Ok(AddMetadata {
                        tags: node.tags()?,
                        properties: properties.unwrap_or_default(),
                    })
                })
            }

            #[cfg(feature = "tables")]
            fn export(&self, _: &Export<'_>) -> Result<Form, Error> {
                let (tags, properties) = self.metadata();
                let params = json!({ "tags": tags, "properties": properties });
                Ok(Form::new("nvtabular.ops.add_metadata.AddMetadata").params(params))
            }
        }
    };
}

tells!(AddMetadata, self => (self.tags.clone(), self.properties.clone()));
tells!(
    AddTags, self => (self.tags.clone(), Properties::new()),
    fn validate(&self, _: &[String]) -> Result<(), String> {
        if self.tags.is_empty() {
            return Err("tags must name at least one tag".to_owned());
        }
        Ok(())
    }
);
tells!(AddProperties, self => (Vec::new(), self.properties.clone()));
tells!(TagAsUserID, self => (tags(&["id", "user"]), Properties::new()));
tells!(TagAsItemID, self => (tags(&["id", "item"]), Properties::new()));
tells!(TagAsUserFeatures, self => (tags(&["user"]), Properties::new()));
tells!(TagAsItemFeatures, self => (tags(&["item"]), Properties::new()));

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|&tag| tag.to_owned()).collect()
}
