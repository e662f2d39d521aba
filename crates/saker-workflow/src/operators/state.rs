//! What fitting leaves for an operator, in memory and in `workflow.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Fitted, Operator};
use crate::error::Error;
#[cfg(feature = "tables")]
use crate::saved::Files;

/// A state that an operator is fitted to.
pub(crate) trait State: InFitted {
    /// Its form in `workflow.json`.
    type Saved;

    /// Reads the tables that the saved form names, from the workflow's folder.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    fn load(saved: Self::Saved, folder: &Path, operator: Option<&Operator>) -> Result<Self, Error>;

    /// The saved form; tables go to `files`.
    ///
    /// # Errors
    /// Another state has a different table of the same name.
    #[cfg(feature = "tables")]
    fn save(&self, operator: Option<&Operator>, files: &mut Files) -> Result<Self::Saved, Error>;

    /// The state in words, a line for each column or table.
    fn lines(&self) -> Vec<String>;
}

/// A kind of [`Fitted`].
pub(crate) trait InFitted: Sized {
    /// The state, if it is of this kind.
    fn of(fitted: &Fitted) -> Option<&Self>;
}

/// The parts of [`State`] that are the same for a state without tables: it is saved as it is.
macro_rules! saved_as_is {
    () => {
        type Saved = Self;

        fn load(
            saved: Self,
            _: &std::path::Path,
            _: Option<&$crate::operators::Operator>,
        ) -> Result<Self, $crate::error::Error> {
            Ok(saved)
        }

        #[cfg(feature = "tables")]
        fn save(
            &self,
            _: Option<&$crate::operators::Operator>,
            _: &mut $crate::saved::Files,
        ) -> Result<Self, $crate::error::Error> {
            Ok(self.clone())
        }
    };
}

pub(crate) use saved_as_is;

/// JoinExternal's table in `workflow.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedExternal {
    file: PathBuf,
}

impl SavedExternal {
    #[cfg(feature = "tables")]
    pub(super) fn load(self, folder: &Path) -> Result<Fitted, Error> {
        let table = crate::files::read_parquet(&crate::saved::inside(folder, &self.file)?)?;
        Ok(Fitted::External(std::sync::Arc::new(table)))
    }

    /// Nothing: an operator over the table does not serve.
    #[cfg(not(feature = "tables"))]
    pub(super) fn load(self, _: &Path) -> Result<Fitted, Error> {
        Ok(Fitted::Nothing)
    }

    #[cfg(feature = "tables")]
    pub(super) fn save(
        table: &std::sync::Arc<arrow::record_batch::RecordBatch>,
        files: &mut Files,
    ) -> Self {
        Self {
            file: files.external(table),
        }
    }
}
