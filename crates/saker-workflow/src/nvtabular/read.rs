//! One node of the graph, as an operator reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Node;
use crate::error::Error;
use crate::operators::{Fitted, Operator};
use crate::parameters::{FloatType, IntType};

/// Some of a node's columns, which pass through operators as a chain of their own.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) names: Vec<String>,
    /// With their states, first to last.
    pub(crate) operators: Vec<(Operator, Fitted)>,
}

impl Part {
    /// Columns through one operator.
    pub(crate) fn new(
        names: Vec<String>,
        operator: impl Into<Operator>,
        fitted: impl Into<Fitted>,
    ) -> Self {
        Self {
            names,
            operators: vec![(operator.into(), fitted.into())],
        }
    }
}

/// A node, and what there is to read it by.
pub(crate) struct Read<'a> {
    pub(super) node: &'a Node,
    /// The columns that it takes.
    pub(crate) names: Vec<String>,
    /// Where its tables lie.
    pub(super) folder: &'a Path,
}

impl Read<'_> {
    /// The operator's name in NVTabular.
    pub(crate) fn operator(&self) -> &str {
        self.node.operator()
    }

    /// Each column by itself through an operator that fits nothing.
    pub(crate) fn each<T: Into<Operator>>(
        &self,
        operator: impl Fn(&str) -> Result<T, Error>,
    ) -> Result<Vec<Part>, Error> {
        self.each_fitted(|name| Ok((operator(name)?, Fitted::Nothing)))
    }

    /// Each column by itself through an operator with its state.
    pub(crate) fn each_fitted<T: Into<Operator>, S: Into<Fitted>>(
        &self,
        operator: impl Fn(&str) -> Result<(T, S), Error>,
    ) -> Result<Vec<Part>, Error> {
        let parts = self.names.iter().map(|name| {
            let (operator, state) = operator(name)?;
            Ok(Part::new(vec![name.clone()], operator, state))
        });
        parts.collect()
    }

    /// Each combination of columns through an operator that fits nothing.
    pub(crate) fn each_group<T: Into<Operator> + Clone>(
        &self,
        operator: &T,
    ) -> Result<Vec<Part>, Error> {
        self.each_group_fitted(operator, &Fitted::Nothing)
    }

    /// Each combination of columns through an operator with its state.
    pub(crate) fn each_group_fitted<T: Into<Operator> + Clone, S: Into<Fitted> + Clone>(
        &self,
        operator: &T,
        state: &S,
    ) -> Result<Vec<Part>, Error> {
        let groups = self.groups()?.unwrap_or_else(|| vec![self.names.clone()]);
        let parts = groups.into_iter();
        let parts = parts.map(|names| Part::new(names, operator.clone(), state.clone()));
        Ok(parts.collect())
    }

    /// The columns that it gives, by its schema.
    pub(crate) fn output_names(&self) -> Vec<String> {
        let outputs = self.node.output_schema.iter().flatten();
        outputs.map(|column| column.name.clone()).collect()
    }

    /// One column's number in a state of numbers by column.
    pub(crate) fn number_of(
        &self,
        state: &str,
        name: &str,
    ) -> Result<BTreeMap<String, f64>, Error> {
        let entry: BTreeMap<String, f64> = self.entry_of(state, name)?;
        if entry.is_empty() {
            return Err(self.fail(&format!("its state has no number for '{name}'")));
        }
        Ok(entry)
    }

    /// One column's entry in a state by column, or nothing.
    pub(crate) fn entry_of<T: DeserializeOwned>(
        &self,
        state: &str,
        name: &str,
    ) -> Result<BTreeMap<String, T>, Error> {
        let mut entries: BTreeMap<String, T> = self.state(state)?;
        entries.retain(|column, _| column == name);
        Ok(entries)
    }

    /// The columns whose names, joined by `_`, make this key.
    pub(crate) fn split(&self, key: &str) -> Result<Vec<String>, Error> {
        fn search(key: &str, names: &[String]) -> Option<Vec<String>> {
            names.iter().find_map(|name| {
                let rest = key.strip_prefix(name.as_str())?;
                if rest.is_empty() {
                    return Some(vec![name.clone()]);
                }
                let mut found = search(rest.strip_prefix('_')?, names)?;
                found.insert(0, name.clone());
                Some(found)
            })
        }
        search(key, &self.names).ok_or_else(|| {
            self.fail(&format!(
                "its state has the key '{key}', which is no combination of the columns {} joined by '_'",
                self.names.join(", ")
            ))
        })
    }

    /// The combinations of columns, where the exporter noted them: `graph.json` itself has the names alone.
    fn groups(&self) -> Result<Option<Vec<Vec<String>>>, Error> {
        self.param("groups")
    }

    pub(crate) fn tags(&self) -> Result<Vec<String>, Error> {
        let tags: Option<Vec<String>> = self.param("tags")?;
        let tags = tags.unwrap_or_default();
        // "Tags.USER_ID" is how Python shows the tag `user_id`.
        Ok((tags.iter())
            .map(|tag| match tag.strip_prefix("Tags.") {
                Some(name) => name.to_lowercase(),
                None => tag.clone(),
            })
            .collect())
    }

    pub(crate) fn callable(&self) -> String {
        #[derive(Deserialize)]
        struct Callable {
            module: String,
            qualname: String,
        }
        match self.param::<Option<Callable>>("f") {
            Ok(Some(f)) => format!("'{}.{}'", f.module, f.qualname),
            _ => "its condition or function".to_owned(),
        }
    }

    pub(crate) fn float_type(&self, name: &str) -> Result<FloatType, Error> {
        match self.dtype(name)?.as_deref() {
            None => Ok(FloatType::Float64),
            Some(dtype) if dtype.contains("float64") || dtype.ends_with("f8") => {
                Ok(FloatType::Float64)
            }
            Some(dtype) if dtype.contains("float32") || dtype.ends_with("f4") => {
                Ok(FloatType::Float32)
            }
            Some(other) => {
                Err(self.fail(&format!("{name} is {other}, accepted: float32, float64")))
            }
        }
    }

    pub(crate) fn int_type(&self, name: &str) -> Result<IntType, Error> {
        match self.dtype(name)?.as_deref() {
            None => Ok(IntType::Int64),
            Some(dtype) if dtype.contains("int64") || dtype.ends_with("i8") => Ok(IntType::Int64),
            Some(dtype) if dtype.contains("int32") || dtype.ends_with("i4") => Ok(IntType::Int32),
            Some(other) => Err(self.fail(&format!("{name} is {other}, accepted: int32, int64"))),
        }
    }

    /// NVTabular writes a type as `{"name": ...}`, by one of NumPy's names for it: `float32`, `<f4`, `<class 'numpy.float32'>`.
    fn dtype(&self, name: &str) -> Result<Option<String>, Error> {
        let dtype: Option<Value> = self.param(name)?;
        Ok(dtype.and_then(|dtype| match dtype {
            Value::String(name) => Some(name),
            other => other.get("name").and_then(Value::as_str).map(str::to_owned),
        }))
    }

    pub(crate) fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.value("op_params", self.node.op_params.get(name), name)
    }

    /// A parameter for one column, where it is given by column.
    pub(crate) fn by_column<T: DeserializeOwned>(
        &self,
        name: &str,
        column: &str,
    ) -> Result<T, Error> {
        match self.node.op_params.get(name) {
            Some(Value::Object(columns)) => self.value("op_params", columns.get(column), name),
            value => self.value("op_params", value, name),
        }
    }

    pub(crate) fn state<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.value("op_state", self.node.op_state.get(name), name)
    }

    fn value<T: DeserializeOwned>(
        &self,
        part: &str,
        value: Option<&Value>,
        name: &str,
    ) -> Result<T, Error> {
        T::deserialize(value.unwrap_or(&Value::Null))
            .map_err(|error| self.fail(&format!("{part}.{name}: {error}")))
    }

    /// A file of the node's folder.
    pub(crate) fn file(&self, path: &Path) -> Result<PathBuf, Error> {
        crate::saved::inside(self.folder, path)
    }

    pub(crate) fn fail(&self, message: &str) -> Error {
        Error::definition(&self.names.join(", "), message)
    }
}
