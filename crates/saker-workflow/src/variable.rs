//! A column between operators, as a program, with its type and what is known of it.

use std::sync::Arc;

use crate::column::DType;
use crate::definition::{Properties, TimeUnit};
use crate::error::Error;
use crate::parts::InputColumn;
use crate::program::{Expression, Kernel, Node};
use crate::vocabulary::Vocabulary;

/// A column between operators.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// Whether the column holds lists of `dtype`.
    pub(crate) list: bool,
    /// The unit since 1970, where the column holds datetimes as int64.
    pub(crate) datetime: Option<TimeUnit>,
    pub(crate) expression: Expression,
    /// Number of codes, for categorical columns.
    pub(crate) cardinality: Option<usize>,
    pub(crate) vocabulary: Option<Arc<Vocabulary>>,
    /// The type in tables, where it is smaller than `dtype`.
    pub(crate) small: Option<SmallInt>,
    pub(crate) tags: Vec<String>,
    pub(crate) properties: Properties,
}

/// An integer type that tables have and kernels do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmallInt {
    Int8,
    Int16,
}

impl Variable {
    pub(crate) fn input(column: &InputColumn, index: usize) -> Self {
        Self {
            name: column.name.clone(),
            dtype: column.dtype,
            list: column.list,
            datetime: column.datetime.then_some(TimeUnit::Ns),
            expression: Expression::Input(index),
            cardinality: None,
            vocabulary: None,
            small: None,
            tags: Vec::new(),
            properties: Properties::new(),
        }
    }

    pub(crate) fn apply(&self, dtype: DType, kernel: Kernel) -> Self {
        apply(
            self.name.clone(),
            dtype,
            self.list,
            kernel,
            vec![self.expression.clone()],
        )
    }

    /// Truth values as 0 and 1; any other column as it is.
    pub(crate) fn as_number(&self) -> Self {
        match self.dtype {
            DType::Bool => self.apply(DType::Int32, Kernel::Cast),
            _ => self.clone(),
        }
    }

    /// A column of numbers, truth values as 0 and 1.
    pub(crate) fn number(&self) -> Result<Self, Error> {
        let number = self.as_number();
        number.numeric()?;
        Ok(number)
    }

    pub(crate) fn require(&self, accepted: bool, types: &str) -> Result<(), Error> {
        if accepted {
            Ok(())
        } else {
            Err(Error::types(&self.name, self.type_name(), types))
        }
    }

    pub(crate) fn numeric(&self) -> Result<(), Error> {
        let number = self.dtype.is_numeric() && self.datetime.is_none();
        self.require(number, "int32, int64, float32 or float64")
    }

    /// Refuses what FillMissing and FillMedian do not fill. A list has no single flag.
    pub(crate) fn fillable(&self, flagged: bool) -> Result<(), Error> {
        if self.dtype != DType::Bool {
            self.numeric()?;
        }
        self.require(
            !(flagged && self.list),
            "one value a row where add_binary_cols is true",
        )
    }

    pub(crate) fn scalar(&self) -> Result<(), Error> {
        self.require(!self.list, "one value a row, not lists")
    }

    /// Refuses datetimes in another unit than pandas has: their integers are not those of NVTabular.
    pub(crate) fn in_nanoseconds(&self) -> Result<(), Error> {
        self.require(
            self.datetime.is_none_or(|unit| unit == TimeUnit::Ns),
            "a datetime column of the input, in nanoseconds",
        )
    }

    /// Refuses datetimes: pandas hashes one that is missing as an integer.
    pub(crate) fn hashed(&self) -> Result<(), Error> {
        let plain = self.datetime.is_none();
        self.require(plain, "integers, floats, strings or bool to hash")
    }

    pub(crate) fn type_name(&self) -> String {
        let element = match self.datetime {
            Some(_) => "datetime".to_owned(),
            None => self.dtype.to_string(),
        };
        if self.list {
            format!("list of {element}")
        } else {
            element
        }
    }
}

pub(crate) fn apply(
    name: String,
    dtype: DType,
    list: bool,
    kernel: Kernel,
    arguments: Vec<Expression>,
) -> Variable {
    Variable {
        name,
        dtype,
        list,
        datetime: None,
        expression: Expression::Apply(Arc::new(Node {
            kernel,
            arguments,
            dtype,
        })),
        cardinality: None,
        vocabulary: None,
        small: None,
        tags: Vec::new(),
        properties: Properties::new(),
    }
}
