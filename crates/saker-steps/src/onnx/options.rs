//! The settings that NVIDIA's ONNX Runtime backend documents, and their support here.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde_json::Value;
use triton_backend::{Error, ModelConfig, log};

/// Keys of NVIDIA's backend for a GPU or an execution provider, which this backend lacks.
const WITHOUT_EFFECT: &[&str] = &[
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "cudnn_conv1d_pad_to_nc1d",
    "do_copy_in_default_stream",
    "gpu_mem_limit",
    "use_tf32",
];

/// Prefixes of ONNX Runtime's own session configuration. Such keys are passed on unchanged.
const PASSED_ON: &[&str] = &["session.", "optimization.", "ep.", "mlas."];

/// The settings of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    intra_threads: usize,
    inter_threads: usize,
    parallel: bool,
    level: Level,
    arena: bool,
    memory_pattern: bool,
    /// Maximum number of rows per run; a larger request needs several runs. Use it only for graphs whose rows are independent.
    pub rows_per_run: Option<NonZeroUsize>,
    /// Value of the run option `memory.enable_memory_arena_shrinkage`.
    pub shrink_arena: Option<String>,
    entries: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Level {
    None,
    Basic,
    Extended,
    All,
}

/// One thread, which is fastest if several models share few cores. NVIDIA's backend uses all cores by default.
impl Default for Options {
    fn default() -> Self {
        Self {
            intra_threads: 1,
            inter_threads: 1,
            parallel: false,
            level: Level::All,
            arena: true,
            memory_pattern: true,
            shrink_arena: None,
            rows_per_run: None,
            entries: Vec::new(),
        }
    }
}

impl Options {
    /// The default settings, with this many threads for one operator; 0 means one per core.
    pub fn with_threads(intra_threads: usize) -> Self {
        Self {
            intra_threads,
            ..Self::default()
        }
    }

    /// Reads the parameters and `optimization` of config.pbtxt.
    ///
    /// # Errors
    ///
    /// Returns an error if neither backend knows a key, or if a value does not parse.
    pub fn from_config(model: &str, config: &ModelConfig) -> Result<Self, Error> {
        let optimization = config.json().get("optimization");
        let accelerators = optimization.and_then(|said| said.get("execution_accelerators"));
        if let Some(Value::Object(accelerators)) = accelerators
            && !accelerators.is_empty()
        {
            log::warn!(
                "model '{model}': execution_accelerators have no effect in this stand-in; the model runs on the CPU"
            );
        }
        let level = optimization.and_then(|said| said.pointer("/graph/level")?.as_i64());
        let level = level.unwrap_or(0);
        Self::parse(model, config.parameters(), level)
    }

    fn parse(
        model: &str,
        parameters: &BTreeMap<String, String>,
        level: i64,
    ) -> Result<Self, Error> {
        let mut options = Self {
            level: match level {
                0 => Level::All,
                -1 => Level::Basic,
                1 => Level::Extended,
                2 => Level::None,
                other => {
                    return Err(Error::invalid_argument(format!(
                        "optimization graph level {other}; accepted: -1 (basic), 0 (all), 1 (extended), 2 (none)"
                    )));
                }
            },
            ..Self::default()
        };
        for (key, value) in parameters {
            match key.as_str() {
                "intra_op_thread_count" => options.intra_threads = count(key, value)?,
                "inter_op_thread_count" => options.inter_threads = count(key, value)?,
                "execution_mode" => options.parallel = flag(key, value)?,
                "enable_mem_arena" => options.arena = flag(key, value)?,
                "enable_mem_pattern" => options.memory_pattern = flag(key, value)?,
                "memory.enable_memory_arena_shrinkage" => {
                    options.shrink_arena = Some(value.clone());
                }
                "rows_per_run" => {
                    options.rows_per_run = NonZeroUsize::new(number(
                        key,
                        value,
                        "a number of rows, 0 for all at once",
                    )?);
                }
                "FORCE_CPU_ONLY_INPUT_TENSORS" => {}
                key if PASSED_ON.iter().any(|prefix| key.starts_with(prefix)) => {
                    options.entries.push((key.to_owned(), value.clone()));
                }
                key if WITHOUT_EFFECT.contains(&key) => {
                    log::warn!("model '{model}': parameter '{key}' has no effect in this stand-in");
                }
                key => {
                    return Err(Error::invalid_argument(format!(
                        "unknown parameter '{key}': ONNX Runtime's own keys begin with one of {}; also accepted: \
                         intra_op_thread_count, inter_op_thread_count, execution_mode, enable_mem_arena, \
                         enable_mem_pattern, memory.enable_memory_arena_shrinkage, rows_per_run",
                        PASSED_ON.join(", ")
                    )));
                }
            }
        }
        Ok(options)
    }

    /// A session builder with these settings.
    ///
    /// # Errors
    ///
    /// Returns an error if ONNX Runtime refuses a setting.
    pub fn builder(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        let level = match self.level {
            Level::None => GraphOptimizationLevel::Disable,
            Level::Basic => GraphOptimizationLevel::Level1,
            Level::Extended => GraphOptimizationLevel::Level2,
            Level::All => GraphOptimizationLevel::All,
        };
        let cpu = ort::ep::CPU::default().with_arena_allocator(self.arena);
        let mut builder = Session::builder(environment)?
            .with_intra_threads(self.intra_threads)?
            .with_inter_threads(self.inter_threads)?
            .with_parallel_execution(self.parallel)?
            .with_optimization_level(level)?
            .with_memory_pattern(self.memory_pattern && !self.parallel)?
            .with_execution_providers([cpu.build()])?;
        for (key, value) in &self.entries {
            builder = builder.with_config_entry(key, value)?;
        }
        Ok(builder)
    }
}

/// A number of threads; 0 means one per core.
fn count(key: &str, value: &str) -> Result<usize, Error> {
    number(key, value, "a number of threads, 0 for one per core")
}

fn number(key: &str, value: &str, accepted: &str) -> Result<usize, Error> {
    value.parse().map_err(|_| {
        Error::invalid_argument(format!("parameter {key} = '{value}'; accepted: {accepted}"))
    })
}

fn flag(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Error::invalid_argument(format!(
            "parameter {key} = '{value}'; accepted: 0 or 1"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use triton_testing as _; // the log functions that the settings call

    use super::*;

    fn parse(parameters: &[(&str, &str)], level: i64) -> Result<Options, Error> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Options::parse("m", &parameters.iter().map(owned).collect(), level)
    }

    #[test]
    fn the_settings_of_the_real_backend_are_read() {
        let options = parse(
            &[
                ("intra_op_thread_count", "4"),
                ("inter_op_thread_count", "2"),
                ("execution_mode", "1"),
                ("enable_mem_arena", "0"),
                ("memory.enable_memory_arena_shrinkage", "cpu:0"),
                ("session.set_denormal_as_zero", "1"),
                ("gpu_mem_limit", "123"),
            ],
            -1,
        )
        .unwrap();
        assert_eq!((options.intra_threads, options.inter_threads), (4, 2));
        assert!(options.parallel && !options.arena && options.memory_pattern);
        assert_eq!(options.level, Level::Basic);
        assert_eq!(options.shrink_arena.as_deref(), Some("cpu:0"));
        let entry = ("session.set_denormal_as_zero".to_owned(), "1".to_owned());
        assert_eq!(options.entries, [entry]);
    }

    #[test]
    fn one_thread_and_all_optimisations_unless_set() {
        let options = parse(&[], 0).unwrap();
        assert_eq!((options.intra_threads, options.level), (1, Level::All));
        assert_eq!(parse(&[], 1).unwrap().level, Level::Extended);
        assert_eq!(parse(&[], 2).unwrap().level, Level::None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (parameters, level, says) in [
            (
                &[("intra_op_threads", "4")][..],
                0,
                "unknown parameter 'intra_op_threads'",
            ),
            (
                &[("intra_op_thread_count", "many")],
                0,
                "intra_op_thread_count = 'many'",
            ),
            (&[("execution_mode", "fast")], 0, "accepted: 0 or 1"),
            (&[], 9, "level 9"),
        ] {
            let error = parse(parameters, level).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }
}
