//! The features of a request's users and context. They are computed once; query tower and ranker read them.

use saker_steps::transform::{invalid, triton_type};
use saker_workflow::{Bound, Plan, Scratch, SliceMut};
use triton_backend::{DataType, Error};

use crate::sessions::Sessions;

/// The workflows that provide the features of a model.
pub(crate) struct Sources<'p> {
    user: &'p Plan,
    moment: &'p Plan,
    columns: Vec<Column>,
}

/// A feature that a model reads.
pub(crate) struct Column {
    name: String,
    /// Whether the feature belongs to the user; otherwise it belongs to the context.
    of_user: bool,
    /// Index of the workflow's output.
    output: usize,
    data_type: DataType,
}

impl<'p> Sources<'p> {
    pub(crate) fn new(user: &'p Plan, moment: &'p Plan) -> Self {
        Self {
            user,
            moment,
            columns: Vec::new(),
        }
    }

    /// Adds the feature that a model reads as `data_type` (INT32 or FP32). Returns its column.
    ///
    /// # Errors
    /// Returns an error if neither workflow has the feature, or if it has another type.
    pub(crate) fn column(
        &mut self,
        name: &str,
        data_type: DataType,
        model: &Sessions,
    ) -> Result<usize, Error> {
        let of = |plan: &Plan| {
            let mut outputs = plan.outputs().iter().enumerate();
            let (place, output) = outputs.find(|(_, output)| output.name == name)?;
            Some((place, triton_type(output.dtype)))
        };
        let (of_user, (output, given)) = of(self.user)
            .map(|found| (true, found))
            .or_else(|| Some((false, of(self.moment)?)))
            .ok_or_else(|| {
                let given = self.user.outputs().iter().chain(self.moment.outputs());
                let given: Vec<&str> = given.map(|output| output.name.as_str()).collect();
                model.invalid(&format!(
                    "reads '{name}', which neither workflow returns; they return: {}",
                    given.join(", ")
                ))
            })?;
        if given != data_type {
            return Err(model.invalid(&format!(
                "reads '{name}' as {data_type}, but its workflow returns {given}"
            )));
        }
        let known = self.columns.iter().position(|column| column.name == name);
        Ok(known.unwrap_or_else(|| {
            self.columns.push(Column {
                name: name.to_owned(),
                of_user,
                output,
                data_type,
            });
            self.columns.len() - 1
        }))
    }

    /// Whether a column is one of the user's features.
    pub(crate) fn is_of_user(&self, column: usize) -> bool {
        self.columns
            .get(column)
            .is_some_and(|column| column.of_user)
    }

    /// All columns, in order.
    pub(crate) fn into_columns(self) -> Vec<Column> {
        self.columns
    }
}

/// The features of one request, one vector per column.
pub(crate) struct Features {
    values: Vec<Values>,
    scratch: Scratch,
}

enum Values {
    Codes(Vec<i32>),
    Numbers(Vec<f32>),
}

impl Features {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let empty = |column: &Column| match column.data_type {
            DataType::Fp32 => Values::Numbers(Vec::new()),
            // A column has no other type.
            _ => Values::Codes(Vec::new()),
        };
        Self {
            values: columns.iter().map(empty).collect(),
            scratch: Scratch::default(),
        }
    }

    /// Computes every column for the users and the context of a request.
    ///
    /// # Errors
    /// Returns an error unless the context has one row, or one row per user.
    pub(crate) fn fill<'a>(
        &mut self,
        columns: &[Column],
        users: &Bound<'a>,
        moments: &Bound<'a>,
    ) -> Result<(), Error> {
        for (values, column) in self.values.iter_mut().zip(columns) {
            let bound = if column.of_user { users } else { moments };
            let rows = bound.rows();
            if rows != 1 && rows != users.rows() {
                return Err(Error::invalid_argument(format!(
                    "tensor '{}' has {rows} elements for {} users; accepted: 1, or one for each user",
                    column.name,
                    users.rows()
                )));
            }
            let buffer = match values {
                Values::Codes(codes) => {
                    codes.resize(rows, 0);
                    SliceMut::Int32(codes)
                }
                Values::Numbers(numbers) => {
                    numbers.resize(rows, 0.0);
                    SliceMut::Float32(numbers)
                }
            };
            bound
                .write(column.output, buffer, &mut self.scratch)
                .map_err(invalid)?;
        }
        Ok(())
    }

    /// The codes of a column.
    ///
    /// # Errors
    /// Returns an error if the column does not hold codes.
    pub(crate) fn codes(&self, column: usize) -> Result<&[i32], Error> {
        match self.values.get(column) {
            Some(Values::Codes(codes)) => Ok(codes),
            _ => Err(Error::internal(format!(
                "feature number {column} has no codes"
            ))),
        }
    }

    /// The numbers of a column.
    ///
    /// # Errors
    /// Returns an error if the column does not hold numbers.
    pub(crate) fn numbers(&self, column: usize) -> Result<&[f32], Error> {
        match self.values.get(column) {
            Some(Values::Numbers(numbers)) => Ok(numbers),
            _ => Err(Error::internal(format!(
                "feature number {column} has no numbers"
            ))),
        }
    }

    /// The code of a column for one user, by the user's index in the request.
    ///
    /// # Errors
    /// Returns an error as [`codes`](Self::codes) does, or if the request has fewer users.
    pub(crate) fn code(&self, column: usize, user: usize) -> Result<i32, Error> {
        of_user(self.codes(column)?, user)
    }

    /// The number of a column for one user, by the user's index in the request.
    ///
    /// # Errors
    /// Returns an error as [`numbers`](Self::numbers) does, or if the request has fewer users.
    pub(crate) fn number(&self, column: usize, user: usize) -> Result<f32, Error> {
        of_user(self.numbers(column)?, user)
    }
}

/// The value for the user at an index. A single value applies to all users.
fn of_user<T: Copy>(values: &[T], user: usize) -> Result<T, Error> {
    match values {
        [one] => Ok(*one),
        _ => values.get(user).copied().ok_or_else(|| {
            Error::internal(format!(
                "a feature has values of {} users, not of user number {user}",
                values.len()
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_the_user_or_of_all() {
        assert_eq!(of_user(&[7, 8], 1), Ok(8));
        assert_eq!(of_user(&[7], 5), Ok(7));
        for values in [&[][..], &[7, 8]] {
            let error = of_user(values, 2).unwrap_err();
            let count = format!("values of {} users, not of user number 2", values.len());
            assert!(error.message().contains(&count), "{}", error.message());
        }
    }

    #[test]
    fn a_column_has_values_of_its_own_type() {
        let column = |data_type| Column {
            name: "f".to_owned(),
            of_user: true,
            output: 0,
            data_type,
        };
        let features = Features::new(&[column(DataType::Int32), column(DataType::Fp32)]);
        assert!(features.codes(0).is_ok() && features.numbers(1).is_ok());
        assert!(features.codes(1).is_err() && features.numbers(0).is_err());
        assert!(features.codes(2).is_err() && features.number(2, 0).is_err());
    }
}
