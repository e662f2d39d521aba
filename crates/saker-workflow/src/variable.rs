//! A column between operators, as a program, with its type and what is known of it.

use std::sync::Arc;

use crate::column::DType;
use crate::error::Error;
use crate::kernels;
use crate::parameters::{Properties, TimeUnit};
use crate::parts::InputColumn;
use crate::program::{self, Arguments, Buffers, Element, Expression, Node};
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

    /// The column under its name after a kernel that treats each value by itself: `run` writes an output of the length of its input.
    /// `null` says what becomes of null rows, whose input is any value.
    ///
    /// # Panics
    /// The column is not of type `T`: use `by_number` to find the type.
    pub(crate) fn map<T: Element, U: Element>(
        &self,
        null: Null<U>,
        run: impl Fn(&[T], &mut [U]) + Send + Sync + 'static,
    ) -> Self {
        if self.dtype != T::DTYPE {
            program::mismatch(T::DTYPE, self.dtype);
        }
        let keeps_nulls = matches!(null, Null::Stays);
        let kernel = U::kernel(Box::new(move |arguments, output, _| {
            run(arguments.values(0), output);
            if let Null::Becomes(value) = null {
                arguments.get(0).replace_nulls(output, value);
            }
        }));
        let node = Node {
            kernel,
            arguments: vec![self.expression.clone()],
            keeps_nulls,
        };
        Self::computed(self.name.clone(), self.list, node)
    }

    /// The column with each value as `convert` gives it.
    pub(crate) fn convert<T: Element, U: Element>(
        &self,
        null: Null<U>,
        convert: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Self {
        self.map(null, move |x: &[T], output| {
            kernels::map(x, output, &convert)
        })
    }

    /// One value a row of these columns; lists of them, where `list`. `run` gets them in their order and sees to nulls itself: the
    /// output has none.
    pub(crate) fn of<'a, U: Element>(
        name: String,
        list: bool,
        columns: impl IntoIterator<Item = &'a Self>,
        run: impl Fn(&Arguments<'_>, &mut [U], &mut Buffers) + Send + Sync + 'static,
    ) -> Self {
        let arguments = columns.into_iter().map(|column| column.expression.clone());
        let node = Node {
            kernel: U::kernel(Box::new(run)),
            arguments: arguments.collect(),
            keeps_nulls: false,
        };
        Self::computed(name, list, node)
    }

    fn computed(name: String, list: bool, node: Node) -> Self {
        Self {
            name,
            dtype: node.kernel.dtype(),
            list,
            datetime: None,
            expression: Expression::Apply(Arc::new(node)),
            cardinality: None,
            vocabulary: None,
            small: None,
            tags: Vec::new(),
            properties: Properties::new(),
        }
    }

    /// Truth values as 0 and 1; any other column as it is.
    pub(crate) fn as_number(&self) -> Self {
        match self.dtype {
            DType::Bool => self.convert(Null::Stays, |x: bool| i32::from(x)),
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
        if self.dtype.is_numeric() && self.datetime.is_none() {
            Ok(())
        } else {
            Err(self.no_number())
        }
    }

    pub(crate) fn no_number(&self) -> Error {
        let accepted = "int32, int64, float32 or float64";
        Error::types(&self.name, self.type_name(), accepted)
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

/// What becomes of a null row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Null<T> {
    /// It stays null.
    Stays,
    /// It gets this value.
    Becomes(T),
}

/// Makes a column of a column of numbers: `$body` with the type of the numbers as `$type`. Any other column is an error, which the
/// function around it returns.
macro_rules! by_number {
    ($column:expr, $type:ident => $body:expr) => {
        match $column.dtype {
            $crate::column::DType::Int32 => {
                type $type = i32;
                $body
            }
            $crate::column::DType::Int64 => {
                type $type = i64;
                $body
            }
            $crate::column::DType::Float32 => {
                type $type = f32;
                $body
            }
            $crate::column::DType::Float64 => {
                type $type = f64;
                $body
            }
            $crate::column::DType::Bool | $crate::column::DType::String => {
                return Err($column.no_number());
            }
        }
    };
}

/// Makes a column of floats: `$body` with the type of the output as `$type`.
macro_rules! by_float {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            $crate::parameters::FloatType::Float32 => {
                type $type = f32;
                $body
            }
            $crate::parameters::FloatType::Float64 => {
                type $type = f64;
                $body
            }
        }
    };
}

pub(crate) use {by_float, by_number};

/// The names of columns, joined.
pub(crate) fn joined(columns: &[Variable], separator: &str) -> String {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    names.join(separator)
}
