//! What a workflow does, as data: chains of operators over named columns.
//!
//! A [`Definition`] is written by people (as TOML in a pipeline definition) or by code, and becomes a
//! `Workflow` by fitting. It holds no fitted numbers.
//!
//! ```
//! use saker_workflow::{Chain, Definition, Operator};
//!
//! let operators: Vec<Operator> = serde_json::from_str(
//!     r#"[{ "op": "Bucketize", "boundaries": [18, 25, 35, 50, 65] }, { "op": "Categorify" }]"#,
//! )?;
//! let definition = Definition::new(vec![Chain::feature("age_binned", "age", operators)]);
//! assert_eq!(definition.output_names()?, ["age_binned"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod table;

use serde::{Deserialize, Serialize};

pub use self::table::{Aggregation, Condition, Join, Scalar, TableOperator};
use crate::error::Error;
use crate::operators::Rename;
pub use crate::operators::{Function, Operator};
pub use crate::parameters::{
    Comparison, FloatType, Grouping, HashKey, IntType, Properties, Similarity, Statistic, TimeUnit,
};

/// A workflow's chains. Their outputs, in order, are the workflow's output columns.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Definitions that the rows pass through before, first to last: each takes the columns that the one before it gives, and so does this
    /// one. An operator over the table can so follow chains, as a Groupby of codes does. They hold no `before` themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Definition>,
    /// Operators over the whole table, first to last, before the chains read it. A workflow with any prepares data; it does not
    /// serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub table: Vec<TableOperator>,
    /// The chains, in the order of their outputs.
    pub chains: Vec<Chain>,
}

/// One or more input columns passed through operators, first to last.
///
/// Every operator maps the columns it gets to the columns it gives, as a chain of `>>` does in NVTabular: most keep
/// the names and treat each column by itself, some join their columns into one ([`HashedCross`](crate::operators::HashedCross)), some add columns
/// ([`FillMissing`](crate::operators::FillMissing) with a flag).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Names of the input columns.
    pub columns: Vec<String>,
    /// The operators, first to last. None: the columns pass through unchanged.
    #[serde(default)]
    pub operators: Vec<Operator>,
}

impl Definition {
    /// A definition of these chains.
    pub fn new(chains: Vec<Chain>) -> Self {
        Self {
            before: Vec::new(),
            table: Vec::new(),
            chains,
        }
    }

    /// This definition and those before it, in the order in which rows pass through them.
    pub fn stages(&self) -> impl Iterator<Item = &Self> {
        self.before.iter().chain(std::iter::once(self))
    }

    /// The input columns that serving needs, in order of first use.
    pub fn input_names(&self) -> Vec<&str> {
        self.before.first().unwrap_or(self).collect_inputs(false)
    }

    /// The input columns that fitting needs: those of serving and the columns aggregated by JoinGroupby and TargetEncoding.
    pub fn fit_input_names(&self) -> Vec<&str> {
        self.before.first().unwrap_or(self).collect_inputs(true)
    }

    /// The columns that this definition itself reads: of what the ones before it give.
    pub(crate) fn own_input_names(&self) -> Vec<&str> {
        self.collect_inputs(false)
    }

    fn collect_inputs(&self, fitting: bool) -> Vec<&str> {
        let made: Vec<String> = (self.table.iter()).flat_map(TableOperator::makes).collect();
        let mut names: Vec<&str> = Vec::new();
        for (position, operator) in self.table.iter().enumerate() {
            let made: Vec<String> = (self.table.iter().take(position))
                .flat_map(TableOperator::makes)
                .collect();
            for name in operator.reads() {
                if !names.contains(&name) && !made.iter().any(|made| made == name) {
                    names.push(name);
                }
            }
        }
        for name in self.chain_inputs(fitting) {
            if !names.contains(&name) && !made.iter().any(|made| made == name) {
                names.push(name);
            }
        }
        names
    }

    /// The columns that the chains read, in order of first use: of the input, or of what the table's operators make of it.
    pub(crate) fn chain_inputs(&self, fitting: bool) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let mut add = |name| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for chain in &self.chains {
            chain.columns.iter().for_each(|name| add(name.as_str()));
            for operator in &chain.operators {
                let operator = operator.transform();
                operator.reads().iter().for_each(|name| add(name.as_str()));
                if fitting {
                    let names = operator.reads_to_fit().iter();
                    names.for_each(|name| add(name.as_str()));
                }
            }
        }
        names
    }

    /// The output columns, in order; fewer, where fitting lets a DropLowCardinality drop some.
    ///
    /// # Errors
    /// As [`Definition::validate`].
    pub fn output_names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = Vec::new();
        for chain in &self.chains {
            for name in chain.output_names()? {
                if names.contains(&name) {
                    return Err(Error::definition(
                        &name,
                        "two chains give this output column; rename one of them",
                    ));
                }
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Checks every parameter that can be checked without data.
    ///
    /// # Errors
    /// Names the column, the operator and what is accepted.
    pub fn validate(&self) -> Result<(), Error> {
        let mut given: Option<Vec<String>> = None;
        for stage in &self.before {
            if !stage.before.is_empty() {
                return Err(Error::definition(
                    &stage.input_names().join(", "),
                    "a definition in `before` holds a `before` itself, accepted is one list of definitions",
                ));
            }
            stage.validate_own(given)?;
            given = Some(stage.output_names()?);
        }
        self.validate_own(given)
    }

    /// Checks the table's operators and the chains, of which the first read the columns `left`, or any columns where `left` is `None`.
    fn validate_own(&self, mut left: Option<Vec<String>>) -> Result<(), Error> {
        self.output_names()?;
        let check = |left: &Option<Vec<String>>, name: &str| match left {
            Some(left) if !left.iter().any(|column| column == name) => Err(Error::MissingColumn {
                column: name.to_owned(),
                given: left.join(", "),
            }),
            _ => Ok(()),
        };
        for operator in &self.table {
            operator.validate()?;
            (operator.reads().into_iter()).try_for_each(|name| check(&left, name))?;
            match (operator.leaves(), &mut left) {
                (Some(only), _) => left = Some(only),
                (None, Some(left)) => left.extend(operator.makes()),
                (None, None) => {}
            }
        }
        (self.chain_inputs(true).into_iter()).try_for_each(|name| check(&left, name))
    }
}

impl Chain {
    /// Columns through operators.
    pub fn new<S: Into<String>>(
        columns: impl IntoIterator<Item = S>,
        operators: Vec<Operator>,
    ) -> Self {
        Self {
            columns: columns.into_iter().map(Into::into).collect(),
            operators,
        }
    }

    /// The chain of one feature: column `source` through `operators` to output `name`. The column is renamed first, so that fitted
    /// numbers and vocabularies carry the feature's name.
    pub fn feature(name: &str, source: &str, operators: Vec<Operator>) -> Self {
        let mut all = Vec::with_capacity(operators.len() + 1);
        if name != source {
            all.push(Rename::to(name).into());
        }
        all.extend(operators);
        Self::new([source], all)
    }

    /// The output columns of this chain, in order.
    ///
    /// # Errors
    /// An operator's parameters are not accepted, or it does not fit the number of columns.
    pub fn output_names(&self) -> Result<Vec<String>, Error> {
        if self.columns.is_empty() {
            return Err(Error::definition("(none)", "a chain names no input column"));
        }
        let mut names = self.columns.clone();
        for operator in &self.operators {
            operator.validate(&names)?;
            names = operator.output_names(&names);
        }
        Ok(names)
    }
}
