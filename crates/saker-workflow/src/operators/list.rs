//! What follows from the lists of operators and of fitted states.

/// The enum of all operators, and its way to what each says of itself.
macro_rules! operators {
    ($($module:ident::$name:ident,)+) => {
        $(pub use self::$module::$name;)+

        /// A feature operator, with the semantics of NVTabular 23.8 and its parameter defaults unless said otherwise.
        ///
        /// In TOML: `operators = [{ op = "Bucketize", boundaries = [18, 25] }, { op = "Categorify" }]`.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "op")]
        pub enum Operator {
            $(
                #[doc = concat!("See [`", stringify!($name), "`].")]
                $name($name),
            )+
        }

        $(impl From<$name> for Operator {
            fn from(operator: $name) -> Self {
                Self::$name(operator)
            }
        })+

        impl Operator {
            /// The operator's name in definitions and error messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)+
                }
            }

            /// What the operator's file says of it.
            pub(crate) fn transform(&self) -> &dyn Transform {
                match self {
                    $(Self::$name(operator) => operator,)+
                }
            }

            /// Reads an operator's node of NVTabular's graph; `None` if no operator goes by its name there.
            #[cfg(feature = "tables")]
            pub(crate) fn import(
                node: &crate::nvtabular::Read<'_>,
            ) -> Option<Result<Vec<crate::nvtabular::Part>, crate::error::Error>> {
                $(if $name::nvtabular_names().contains(&node.operator()) {
                    return Some($name::import(node));
                })+
                None
            }

            /// Whether the operator of this name in NVTabular reads columns of the input besides its own.
            #[cfg(feature = "tables")]
            pub(crate) fn imports_input(name: &str) -> bool {
                $(($name::nvtabular_reads_input() && $name::nvtabular_names().contains(&name)))||+
            }
        }
    };
}

/// The enums of all fitted states, in memory and in `workflow.json`.
macro_rules! states {
    ($($kind:ident($module:ident::$state:ident),)+) => {
        $(pub use self::$module::$state;)+

        /// An operator's fitted state, by the names of the columns it gets.
        #[derive(Debug, Clone, Default)]
        pub enum Fitted {
            /// The operator has nothing to fit.
            #[default]
            Nothing,
            $(
                #[doc = concat!("See [`", stringify!($state), "`].")]
                $kind($state),
            )+
            /// JoinExternal: the chosen columns of the other table.
            #[cfg(feature = "tables")]
            External(std::sync::Arc<arrow::record_batch::RecordBatch>),
        }

        $(impl state::InFitted for $state {
            fn of(fitted: &Fitted) -> Option<&Self> {
                match fitted {
                    Fitted::$kind(state) => Some(state),
                    _ => None,
                }
            }
        }

        impl From<$state> for Fitted {
            fn from(state: $state) -> Self {
                Self::$kind(state)
            }
        })+

        /// A fitted state in `workflow.json`.
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub(crate) enum SavedFitted {
            $($kind(<$state as State>::Saved),)+
            External(state::SavedExternal),
        }

        impl SavedFitted {
            /// The state, with its tables read from the workflow's folder. An operator over the table has no `operator`.
            pub(crate) fn load(
                self,
                folder: &std::path::Path,
                operator: Option<&Operator>,
            ) -> Result<Fitted, crate::error::Error> {
                Ok(match self {
                    $(Self::$kind(saved) => {
                        Fitted::$kind(<$state as State>::load(saved, folder, operator)?)
                    })+
                    Self::External(saved) => saved.load(folder)?,
                })
            }
        }

        impl Fitted {
            /// The state in words, a line for each column or table.
            pub fn lines(&self) -> Vec<String> {
                match self {
                    Self::Nothing => Vec::new(),
                    $(Self::$kind(state) => state.lines(),)+
                    #[cfg(feature = "tables")]
                    Self::External(table) => vec![format!("{} rows", table.num_rows())],
                }
            }

            /// The state's form in `workflow.json`; its tables go to `files`.
            #[cfg(feature = "tables")]
            pub(crate) fn save(
                &self,
                operator: Option<&Operator>,
                files: &mut crate::saved::Files,
            ) -> Result<Option<SavedFitted>, crate::error::Error> {
                Ok(match self {
                    Self::Nothing => None,
                    $(Self::$kind(state) => Some(SavedFitted::$kind(state.save(operator, files)?)),)+
                    Self::External(table) => {
                        Some(SavedFitted::External(state::SavedExternal::save(table, files)))
                    }
                })
            }
        }
    };
}
