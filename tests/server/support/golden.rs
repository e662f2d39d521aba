//! The golden pipeline of `tests/data/reference`, served: its users and items in a real Valkey, its
//! models assembled from examples/retail/pipeline.toml, everything on a real Triton.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use saker::assemble::{
    pbtxt::ModelConfig,
    steps::{self, Defaults},
};
use saker_pipeline::Pipeline;
use serde::Deserialize;
use triton_testing::{
    repository::Repository,
    runtime,
    server::{Outputs, TritonServer},
    tensor::Tensor,
    valkey::Valkey,
};

use super::{
    stage::data,
    store::write_golden,
    workflow::{self, golden_workflow},
};

/// One request and what the reference answered to it.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) user_id: i32,
    pub(crate) device_type: i32,
    pub(crate) timestamp: i32,
    pub(crate) user_features: BTreeMap<String, f64>,
    pub(crate) context_features: BTreeMap<String, f64>,
    pub(crate) query_embedding_head: Vec<f64>,
    pub(crate) candidate_ids: Vec<i32>,
    pub(crate) ordered_ids: Vec<i32>,
    pub(crate) ordered_scores: Vec<f32>,
}

impl Answer {
    /// Scores to 1e-5, ids exactly; where two scores tie, either id may come first.
    pub(crate) fn assert_reproduced(&self, ids: &[i32], scores: &[f32]) {
        assert_eq!(ids.len(), self.ordered_ids.len(), "user {}", self.user_id);
        assert_eq!(scores.len(), ids.len());
        let tie = |left: f32, right: f32| (left - right).abs() < 1e-6;
        for (place, (&id, &score)) in ids.iter().zip(scores).enumerate() {
            let expected = self.ordered_scores[place];
            assert!(
                (score - expected).abs() <= 1e-5,
                "user {}, place {place}: score {score}, not {expected}",
                self.user_id
            );
            if id != self.ordered_ids[place] {
                let known = self.ordered_ids.iter().position(|&known| known == id);
                let of_id = known.map_or(self.ordered_scores[ids.len() - 1], |at| {
                    self.ordered_scores[at]
                });
                assert!(
                    tie(of_id, expected),
                    "user {}, place {place}: item {id}, not {}",
                    self.user_id,
                    self.ordered_ids[place]
                );
            }
        }
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ids.len(), "an item twice: {ids:?}");
    }
}

/// The 60 requests.
pub(crate) fn answers() -> &'static [Answer] {
    static ANSWERS: OnceLock<Vec<Answer>> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let text = std::fs::read(data("reference/answers.json")).expect("the answers");
        let answers: Vec<Answer> = serde_json::from_slice(&text).expect("answers");
        assert_eq!(answers.len(), 60);
        answers
    })
}

/// The served golden pipeline. Fields drop in order: Triton first.
pub(crate) struct Golden {
    pub(crate) server: TritonServer,
    pub(crate) valkey: Valkey,
    pub(crate) repository: Repository,
    models: Vec<ModelConfig>,
}

/// The one that tests share; a test that breaks things starts its own with [`Golden::start`].
pub(crate) fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(Golden::start)
}

impl Golden {
    /// Starts Valkey and Triton and loads all models.
    pub(crate) fn start() -> Self {
        let valkey = Valkey::start().expect("a running Valkey");
        write_golden(&valkey);
        let repository = Repository::new().expect("a model repository");
        let models = assemble(&valkey, &repository);
        let server = TritonServer::builder()
            .repository(repository.path())
            .start()
            .expect("a running Triton");
        let golden = Self {
            server,
            valkey,
            repository,
            models,
        };
        for model in &golden.models {
            if let Err(error) = golden.server.load(&model.name) {
                panic!("{error}\n{}", golden.server.log());
            }
        }
        golden
    }

    /// The names of the models, the ensemble last.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| model.name.as_str())
    }

    /// Asks a model for all its outputs, and gets them.
    pub(crate) fn answer(&self, model: &str, inputs: &[Tensor]) -> Outputs {
        self.server
            .infer(model, inputs, &[])
            .unwrap_or_else(|error| panic!("{error}\n{}", self.server.log()))
    }

    /// Runs the ensemble's steps one by one, as separate requests, and gives every tensor under the
    /// name that it has in the ensemble: the request's own, and `<model>/<output>` of each step.
    pub(crate) fn trace(&self, inputs: &[Tensor]) -> HashMap<String, Tensor> {
        let mut tensors: HashMap<String, Tensor> = inputs
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.clone()))
            .collect();
        for step in &self.ensemble().steps {
            let inputs = self.step_inputs(&step.model, &tensors);
            let outputs = self.answer(&step.model, &inputs);
            for (output, target) in &step.outputs {
                let tensor = outputs.get(output).expect("the step's output").clone();
                tensors.insert(target.clone(), tensor);
            }
        }
        tensors
    }

    /// A step's inputs among the tensors of a [trace](Self::trace).
    pub(crate) fn step_inputs(
        &self,
        model: &str,
        tensors: &HashMap<String, Tensor>,
    ) -> Vec<Tensor> {
        let step = self
            .ensemble()
            .steps
            .iter()
            .find(|step| step.model == model)
            .expect("a step of the ensemble");
        step.inputs
            .iter()
            .filter_map(|(input, source)| {
                let mut tensor = tensors.get(source)?.clone();
                tensor.name.clone_from(input);
                Some(tensor)
            })
            .collect()
    }

    fn ensemble(&self) -> &ModelConfig {
        self.models.last().expect("an ensemble")
    }
}

/// examples/retail/pipeline.toml, as the golden pipeline differs from it.
fn pipeline(valkey: &Valkey) -> Pipeline {
    let definition = runtime::workspace().join("examples/retail/pipeline.toml");
    let mut pipeline = Pipeline::load(&definition).expect("the retail pipeline");
    pipeline.ranking.topk = 20;
    pipeline.store.redis_url = valkey.url(0).trim_end_matches("/0").to_owned();
    pipeline
}

fn assemble(valkey: &Valkey, repository: &Repository) -> Vec<ModelConfig> {
    let pipeline = pipeline(valkey);
    let defaults = Defaults::of(&pipeline).expect("defaults");
    let models = steps::models(&pipeline, &defaults, 1).expect("the models");
    for model in &models {
        repository
            .model(&model.name, &model.render())
            .expect("a model folder");
    }
    let copy = |source: &str, place: &str| {
        repository
            .copy(&data(&format!("reference/{source}")), place)
            .expect("an artefact");
    };
    for (group, model) in [
        ("user", "nvt_user_transform"),
        ("context", "nvt_context_transform"),
        ("item", "nvt_item_transform"),
    ] {
        golden_workflow(group, &repository.path().join(model).join("1"));
    }
    copy("query_tower.onnx", "query_tower/1/model.onnx");
    copy("dlrm_ranking.onnx", "dlrm_ranking/1/model.onnx");
    copy("index.faiss", "faiss_retrieval/1/index.faiss");
    for (table, tensor) in [
        ("image", "item_image_embeddings"),
        ("text", "item_description_embeddings"),
    ] {
        copy(
            &format!("lookup_embeddings_{table}.npy"),
            &format!("multimodal_embedding_lookup/1/{tensor}.npy"),
        );
    }
    copy(
        "categories/item/unique.item_id.parquet",
        "item_id_decoder/1/categories/unique.item_id.parquet",
    );
    let release = serde_json::json!({ "format": 1, "release": workflow::RELEASE, "files": {} });
    for model in models.iter().filter(|model| model.steps.is_empty()) {
        repository
            .write(
                &format!("{}/1/release.json", model.name),
                release.to_string().as_bytes(),
            )
            .expect("a release");
    }
    let releases = serde_json::json!({ "format": 1, "releases": { "1": workflow::RELEASE } });
    repository
        .write("releases.json", releases.to_string().as_bytes())
        .expect("the releases");
    models
}
