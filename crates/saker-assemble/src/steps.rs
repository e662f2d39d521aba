//! Builds the 14 steps and the ensemble from a pipeline definition.
//!
//! Names of models and of the tensors between retrieval, ranking and answer are the contract's (docs/contract.md); names
//! of features come from the definition.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use saker_contract::ensemble::ENSEMBLE;
use saker_contract::tensor::{
    CANDIDATE_IDS, DEGRADED, FILTERED_IDS, ORDERED_IDS, ORDERED_SCORES, QUERY_VECTOR, RELEASE,
    SCORE,
};
use saker_contract::{Database, Step, artefact};
use saker_pipeline::{
    Column, ColumnType, Default as Fallback, Entity, Feature, FeatureKind, LookupMode, Pipeline,
};
use saker_serving::defaults::Defaults;
use saker_store::address::{has_credentials, in_environment};

use super::pbtxt::{self, DataType, ModelConfig, Tensor};

/// Number of users whose candidates the ranker scores in one run.
const USERS_PER_RUN: usize = 2;

/// Every model's configuration, in the order of the steps, with the ensemble last.
///
/// # Errors
/// Returns an error if `defaults` lacks a default.
pub fn models(pipeline: &Pipeline, defaults: &Defaults, version: u64) -> Result<Vec<ModelConfig>> {
    // If a step of an ensemble fails while another one runs, Triton exits or loses the request. So the steps are a chain: each waits for
    // the one before it, if necessary for a tensor that it does not read.
    let mut steps = Steps::new(pipeline, version);
    steps.request();
    steps.user(defaults)?;
    steps.query()?;
    steps.candidates()?;
    steps.items(defaults)?;
    steps.ranking();
    steps.answer();
    Ok(steps.finish(ENSEMBLE))
}

/// The steps of the ensemble of 14 steps.
impl Steps<'_> {
    /// 0: checks the request and fills in missing values.
    fn request(&mut self) {
        let pipeline = self.pipeline;
        let user_id = pipeline.user.id.as_str();
        let mut request = vec![Tensor::column(user_id, DataType::Int32)];
        let moment = pipeline.context.columns.iter();
        request.extend(moment.map(|column| Tensor::column(&column.name, data_type(column))));
        self.add(
            Step::ContextPreprocessor,
            wire(request.iter().cloned().map(Tensor::optional), |name| {
                name.to_owned()
            }),
            request,
            BTreeMap::from([
                (
                    "DEFAULTS".to_owned(),
                    request_defaults(&pipeline.context.columns),
                ),
                ("USER_INPUT".to_owned(), user_id.to_owned()),
                max_users(pipeline),
            ]),
        );
    }

    /// 1: the features of the context and of the user.
    fn user(&mut self, defaults: &Defaults) -> Result<()> {
        let pipeline = self.pipeline;
        let user_id = pipeline.user.id.as_str();
        let checked_user = from(Step::ContextPreprocessor)(user_id);
        let read = read_columns(&pipeline.context.features);
        let context_columns = pipeline
            .context
            .columns
            .iter()
            .filter(|column| read.contains(&column.name.as_str()));
        self.add(
            Step::ContextTransform,
            wire(
                context_columns.map(|column| Tensor::column(&column.name, data_type(column))),
                from(Step::ContextPreprocessor),
            ),
            features(&pipeline.context.features),
            BTreeMap::new(),
        );
        let user_columns: Vec<&Column> = pipeline.user.stored().collect();
        let mut lookup_inputs = vec![(
            Tensor::column(user_id, DataType::Int32),
            checked_user.clone(),
        )];
        let awaited = features(&pipeline.context.features).into_iter().take(1);
        lookup_inputs.extend(wire(
            awaited.map(Tensor::optional),
            from(Step::ContextTransform),
        ));
        self.add(
            Step::UserLookup,
            lookup_inputs,
            looked_up(user_id, &user_columns)
                .into_iter()
                .chain([Tensor::column(DEGRADED, DataType::Int32)])
                .collect(),
            lookup_parameters(pipeline, &pipeline.user, &defaults.user)?,
        );
        let read = read_columns(&pipeline.user.features);
        self.add(
            Step::UserTransform,
            wire(
                looked_up(user_id, &user_columns)
                    .into_iter()
                    .filter(|tensor| read.contains(&tensor.name.as_str())),
                from(Step::UserLookup),
            ),
            features(&pipeline.user.features),
            BTreeMap::new(),
        );
        Ok(())
    }

    /// 2: the user's query vector.
    fn query(&mut self) -> Result<()> {
        let pipeline = self.pipeline;
        let vector = vector(pipeline)?;
        self.add(
            Step::QueryTower,
            wire(features(&pipeline.user.features), from(Step::UserTransform)),
            vec![Tensor::rows(QUERY_VECTOR, vector)],
            onnxruntime_parameters(pipeline),
        );
        Ok(())
    }

    /// 3 and 4: the candidates, without seen items.
    fn candidates(&mut self) -> Result<()> {
        let pipeline = self.pipeline;
        let user_id = pipeline.user.id.as_str();
        let vector = vector(pipeline)?;
        let checked_user = from(Step::ContextPreprocessor)(user_id);
        self.add(
            Step::Retrieval,
            wire([Tensor::rows(QUERY_VECTOR, vector)], from(Step::QueryTower)),
            vec![Tensor::column(CANDIDATE_IDS, DataType::Int32)],
            retrieval_parameters(pipeline),
        );
        let mut filter_inputs = vec![
            (
                Tensor::column(user_id, DataType::Int32),
                checked_user.clone(),
            ),
            (
                Tensor::column(CANDIDATE_IDS, DataType::Int32),
                Step::Retrieval.output(CANDIDATE_IDS),
            ),
        ];
        if let Some(category) = &pipeline.store.popularity_category {
            filter_inputs.push((
                Tensor::column(category, DataType::Int32).optional(),
                Step::UserLookup.output(category),
            ));
        }
        filter_inputs.push((
            Tensor::column(DEGRADED, DataType::Int32).optional(),
            from(Step::UserLookup)(DEGRADED),
        ));
        self.add(
            Step::SeenFilter,
            filter_inputs,
            vec![
                Tensor::column(FILTERED_IDS, DataType::Int32),
                Tensor::column(DEGRADED, DataType::Int32),
            ],
            filter_parameters(pipeline),
        );
        Ok(())
    }

    /// 5: the candidates' features.
    fn items(&mut self, defaults: &Defaults) -> Result<()> {
        let pipeline = self.pipeline;
        let item_id = pipeline.item.id.as_str();
        let item_columns: Vec<&Column> = pipeline.item.stored().collect();
        self.add(
            Step::ItemLookup,
            vec![(
                Tensor::column(FILTERED_IDS, DataType::Int32),
                Step::SeenFilter.output(FILTERED_IDS),
            )],
            looked_up(item_id, &item_columns),
            lookup_parameters(pipeline, &pipeline.item, &defaults.item)?,
        );
        let read = read_columns(&pipeline.item.features);
        self.add(
            Step::ItemTransform,
            wire(
                looked_up(item_id, &item_columns)
                    .into_iter()
                    .filter(|tensor| read.contains(&tensor.name.as_str())),
                from(Step::ItemLookup),
            ),
            features(&pipeline.item.features),
            BTreeMap::new(),
        );
        let embeddings = embeddings(pipeline);
        if !embeddings.is_empty() {
            self.add(
                Step::EmbeddingLookup,
                wire(
                    [Tensor::column(item_id, DataType::Int32)],
                    from(Step::ItemTransform),
                ),
                embeddings,
                BTreeMap::new(),
            );
        }
        Ok(())
    }

    /// 6: one row per candidate, its score, the best candidates.
    fn ranking(&mut self) {
        let pipeline = self.pipeline;
        let user_id = pipeline.user.id.as_str();
        let item_id = pipeline.item.id.as_str();
        let checked_user = from(Step::ContextPreprocessor)(user_id);
        let mut sources = Vec::new();
        sources.extend(wire(
            features(&pipeline.user.features),
            from(Step::UserTransform),
        ));
        sources.extend(wire(
            features(&pipeline.context.features),
            from(Step::ContextTransform),
        ));
        sources.extend(wire(
            features(&pipeline.item.features),
            from(Step::ItemTransform),
        ));
        sources.extend(wire(embeddings(pipeline), from(Step::EmbeddingLookup)));
        let rows: Vec<Tensor> = sources.iter().map(|(tensor, _)| tensor.clone()).collect();
        self.add(
            Step::Unroll,
            sources,
            rows.clone(),
            BTreeMap::from([
                ("ITEM_INPUT".to_owned(), item_id.to_owned()),
                (
                    "USER_INPUT".to_owned(),
                    pipeline.user.features[0].name.clone(),
                ),
            ]),
        );
        self.add(
            Step::Ranking,
            wire(rows, from(Step::Unroll)),
            vec![Tensor::rows(SCORE, 1)],
            ranker_parameters(pipeline),
        );
        self.add(
            Step::Sampling,
            vec![
                (
                    Tensor::column(item_id, DataType::Int32),
                    Step::Unroll.output(item_id),
                ),
                (Tensor::rows(SCORE, 1), Step::Ranking.output(SCORE)),
                (
                    Tensor::column(user_id, DataType::Int32).optional(),
                    checked_user,
                ),
            ],
            answer(),
            BTreeMap::from([
                ("RANKING_TOPK".to_owned(), pipeline.ranking.topk.to_string()),
                (
                    "DIVERSITY_MODE".to_owned(),
                    pipeline.ranking.diversity.to_string(),
                ),
                ("ITEM_INPUT".to_owned(), item_id.to_owned()),
                ("USER_INPUT".to_owned(), user_id.to_owned()),
            ]),
        );
    }

    /// 7: the shop's item ids.
    fn answer(&mut self) {
        let pipeline = self.pipeline;
        let item_id = pipeline.item.id.as_str();
        self.add(
            Step::Decoder,
            wire(answer(), from(Step::Sampling)),
            answer_of_release(),
            BTreeMap::from([("VOCABULARY".to_owned(), artefact::vocabulary(item_id))]),
        );
    }
}

/// The outputs of the embedding tables.
fn embeddings(pipeline: &Pipeline) -> Vec<Tensor> {
    let tables = pipeline.item.embeddings.iter();
    tables
        .map(|table| Tensor::rows(&table.name, table.dim))
        .collect()
}

/// An ensemble under construction.
pub(super) struct Steps<'p> {
    pipeline: &'p Pipeline,
    version: u64,
    models: Vec<ModelConfig>,
    steps: Vec<pbtxt::Step>,
}

impl<'p> Steps<'p> {
    pub(super) fn new(pipeline: &'p Pipeline, version: u64) -> Self {
        Self {
            pipeline,
            version,
            models: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Adds a model whose inputs are these tensors of the ensemble. [`Step::output`] names its outputs there.
    pub(super) fn add(
        &mut self,
        step: Step,
        inputs: Vec<(Tensor, String)>,
        outputs: Vec<Tensor>,
        parameters: BTreeMap<String, String>,
    ) {
        self.steps.push(pbtxt::Step {
            model: step.model().to_owned(),
            version: self.version,
            inputs: inputs
                .iter()
                .map(|(tensor, source)| (tensor.name.clone(), source.clone()))
                .collect(),
            outputs: outputs
                .iter()
                .map(|tensor| (tensor.name.clone(), step.output(&tensor.name)))
                .collect(),
        });
        let serving = &self.pipeline.serving;
        self.models.push(ModelConfig {
            name: step.model().to_owned(),
            backend: step.backend().to_owned(),
            inputs: inputs.into_iter().map(|(tensor, _)| tensor).collect(),
            outputs,
            parameters,
            instances: serving
                .instances
                .get(step.model())
                .copied()
                .unwrap_or(serving.instance_count),
            ..ModelConfig::default()
        });
    }

    /// The models, and the ensemble of this name, which clients call.
    pub(super) fn finish(mut self, name: &str) -> Vec<ModelConfig> {
        if let Some(last) = self.steps.last_mut() {
            for (tensor, target) in &mut last.outputs {
                target.clone_from(tensor);
            }
        }
        // The last step with the output `degraded` includes the masks of all steps before it.
        let says = self.steps.iter_mut().rev();
        let mut says = says.flat_map(|step| step.outputs.iter_mut());
        if let Some((_, target)) = says.find(|(tensor, _)| tensor == DEGRADED) {
            target.replace_range(.., DEGRADED);
        }
        // Triton refuses an ensemble with an unused tensor.
        let read: BTreeSet<String> = self
            .steps
            .iter()
            .flat_map(|step| step.inputs.iter())
            .map(|(_, source)| source.clone())
            .chain([DEGRADED.to_owned()])
            .collect();
        if let Some((_, others)) = self.steps.split_last_mut() {
            for step in others {
                step.outputs.retain(|(_, target)| read.contains(target));
            }
        }
        // Optional, so that the step that checks the request can report the missing input. If the ensemble required it, Triton would use
        // any other input in its place, and then report a deadlock.
        let mut inputs = vec![Tensor::column(&self.pipeline.user.id, DataType::Int32).optional()];
        inputs.extend(
            self.pipeline
                .context
                .columns
                .iter()
                .map(|column| Tensor::column(&column.name, data_type(column)).optional()),
        );
        self.models.push(ModelConfig {
            name: name.to_owned(),
            inputs,
            outputs: answer_of_release()
                .into_iter()
                .chain([Tensor::column(DEGRADED, DataType::Int32)])
                .collect(),
            steps: self.steps,
            ..ModelConfig::default()
        });
        self.models
    }
}

/// Length of the towers' vectors.
fn vector(pipeline: &Pipeline) -> Result<usize> {
    let last = pipeline.towers.layers.last();
    last.copied().context("towers.layers is empty")
}

/// Returns the ensemble's name of a step's output.
fn from(step: Step) -> impl Fn(&str) -> String {
    move |tensor| step.output(tensor)
}

pub(super) fn wire(
    tensors: impl IntoIterator<Item = Tensor>,
    source: impl Fn(&str) -> String,
) -> Vec<(Tensor, String)> {
    tensors
        .into_iter()
        .map(|tensor| {
            let source = source(&tensor.name);
            (tensor, source)
        })
        .collect()
}

fn answer() -> Vec<Tensor> {
    vec![
        Tensor::column(ORDERED_IDS, DataType::Int32),
        Tensor::column(ORDERED_SCORES, DataType::Fp32),
    ]
}

pub(super) fn answer_of_release() -> Vec<Tensor> {
    let mut tensors = answer();
    tensors.push(Tensor::text(RELEASE));
    tensors
}

pub(super) fn data_type(column: &Column) -> DataType {
    match column.kind {
        ColumnType::Float32 => DataType::Fp32,
        ColumnType::Int32 | ColumnType::Text => DataType::Int32,
    }
}

fn looked_up(id: &str, columns: &[&Column]) -> Vec<Tensor> {
    let mut tensors = vec![Tensor::column(id, DataType::Int32)];
    tensors.extend(
        columns
            .iter()
            .map(|column| Tensor::column(&column.name, data_type(column))),
    );
    tensors
}

fn read_columns(features: &[Feature]) -> Vec<&str> {
    features.iter().flat_map(Feature::columns).collect()
}

fn features(features: &[Feature]) -> Vec<Tensor> {
    let tensor = |feature: &Feature| match feature.kind() {
        FeatureKind::Categorical => Tensor::column(&feature.name, DataType::Int32),
        FeatureKind::Continuous => Tensor::column(&feature.name, DataType::Fp32),
    };
    features.iter().map(tensor).collect()
}

/// The parameter `DEFAULTS` of `request_defaults`.
pub(super) fn request_defaults(columns: &[Column]) -> String {
    let values = columns.iter().map(|column| {
        let value = match &column.default {
            Fallback::Number(value) => number(*value),
            Fallback::Word(word) => word.as_str().into(),
        };
        (column.name.clone(), value)
    });
    serde_json::Value::Object(values.collect()).to_string()
}

fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < i64::MAX as f64 {
        (value as i64).into()
    } else {
        value.into()
    }
}

pub(super) fn lookup_parameters(
    pipeline: &Pipeline,
    entity: &Entity,
    defaults: &BTreeMap<String, f64>,
) -> Result<BTreeMap<String, String>> {
    let store = &pipeline.store;
    let of_users = entity.id == pipeline.user.id;
    let (view, mode, entity_type) = if of_users {
        (&store.user_view, store.user_lookup, store.entity_type)
    } else {
        (&store.item_view, store.item_lookup, store.item_entity_type)
    };
    let mut parameters = BTreeMap::from([
        (
            "REDIS_URL".to_owned(),
            database(pipeline, Database::Features),
        ),
        ("MODE".to_owned(), mode.as_str().to_owned()),
        ("FEAST_PROJECT".to_owned(), store.feast_project.clone()),
        ("FEATURE_VIEW".to_owned(), view.clone()),
        ("ENTITY".to_owned(), entity.id.clone()),
        (
            "ENTITY_KEY_SERIALIZATION".to_owned(),
            store.entity_key_serialization.to_string(),
        ),
        ("DEADLINE_MS".to_owned(), store.deadline_ms.to_string()),
    ]);
    if let Some(entity_type) = entity_type {
        parameters.insert("ENTITY_TYPE".to_owned(), entity_type.as_str().to_owned());
    }
    if mode == LookupMode::Cached {
        parameters.insert(
            "REFRESH_SECONDS".to_owned(),
            store.refresh_seconds.to_string(),
        );
    }
    let mut others = serde_json::Map::new();
    let mut other_views = serde_json::Map::new();
    for column in entity.stored() {
        if let Some(view) = &column.view {
            other_views.insert(column.name.clone(), view.as_str().into());
        }
        let value = defaults.get(&column.name).with_context(|| {
            format!(
                "no default value of column {}; run `saker prepare`",
                column.name
            )
        })?;
        // The reference's own name for this setting.
        if of_users && column.name == "age" {
            parameters.insert("DEFAULT_USER_AGE".to_owned(), number(*value).to_string());
        } else {
            others.insert(column.name.clone(), number(*value));
        }
    }
    for (key, object) in [("DEFAULTS", others), ("OTHER_VIEWS", other_views)] {
        if !object.is_empty() {
            let text = serde_json::Value::Object(object).to_string();
            parameters.insert(key.to_owned(), text);
        }
    }
    Ok(parameters)
}

pub(super) fn retrieval_parameters(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let retrieval = &pipeline.retrieval;
    let mut parameters = BTreeMap::from([
        ("RETRIEVAL_TOPK".to_owned(), retrieval.topk.to_string()),
        ("THREADS".to_owned(), retrieval.threads.to_string()),
    ]);
    if !retrieval.search_parameters.is_empty() {
        parameters.insert(
            "SEARCH_PARAMETERS".to_owned(),
            retrieval.search_parameters.clone(),
        );
    }
    parameters
}

pub(super) fn filter_parameters(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let store = &pipeline.store;
    BTreeMap::from([
        (
            "REDIS_URL".to_owned(),
            database(pipeline, Database::Activity),
        ),
        ("MODE".to_owned(), store.bloom.mode.clone()),
        ("CAPACITY".to_owned(), store.bloom.capacity.to_string()),
        ("ERROR_RATE".to_owned(), store.bloom.error_rate.to_string()),
        ("DEADLINE_MS".to_owned(), store.deadline_ms.to_string()),
        ("RANKING_TOPK".to_owned(), pipeline.ranking.topk.to_string()),
        (
            "POPULARITY_URL".to_owned(),
            database(pipeline, Database::Popularity),
        ),
    ])
}

/// Parameters of the ranker, which scores the candidates of a few users at a time. Its buffers are as large as the largest run.
fn ranker_parameters(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let mut parameters = onnxruntime_parameters(pipeline);
    let rows = pipeline.retrieval.topk.max(1) * USERS_PER_RUN;
    parameters.insert("rows_per_run".to_owned(), rows.to_string());
    parameters
}

/// The parameter `MAX_USERS` of the step that checks a request.
pub(super) fn max_users(pipeline: &Pipeline) -> (String, String) {
    let most = pipeline.serving.max_users;
    ("MAX_USERS".to_owned(), most.to_string())
}

/// Parameters of the onnxruntime backend, both NVIDIA's and Saker's.
pub(super) fn onnxruntime_parameters(pipeline: &Pipeline) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "intra_op_thread_count".to_owned(),
            pipeline.serving.onnxruntime_threads.to_string(),
        ),
        ("inter_op_thread_count".to_owned(), "1".to_owned()),
    ])
}

/// A database of the store as config.pbtxt names it. Triton shows that file to every client. If the URL contains a login, the models read
/// it from the environment instead, where `saker serve` sets it.
fn database(pipeline: &Pipeline, database: Database) -> String {
    let url = &pipeline.store.redis_url;
    if !has_credentials(url) {
        return format!("{}/{}", url.trim_end_matches('/'), database.number());
    }
    in_environment(database)
}
