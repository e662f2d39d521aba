//! The golden pipeline of `tests/data/reference`, served: its users and items in a real Valkey, its
//! models assembled from examples/retail/pipeline.toml, everything on a real Triton.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use saker_assemble::{self as assemble, Artefacts, pbtxt::ModelConfig, steps};
use saker_pipeline::{Group, Pipeline};
use saker_serving::defaults::Defaults;
use saker_testing::{runtime, valkey::Valkey};
use serde::Deserialize;
use triton_testing::{
    server::{Outputs, TritonServer},
    tensor::Tensor,
};

use super::{stage::data, store::write_golden, workflow::golden_workflow};

/// The release id of the golden repository.
pub(crate) const RELEASE: &str = "golden-5";

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
    models: Vec<ModelConfig>,
    folder: tempfile::TempDir,
}

/// The one that tests share; a test that breaks things starts its own with [`Golden::start`].
pub(crate) fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    // The machine that runs the tests may be busy, and a cold start's answer is not the golden one.
    GOLDEN.get_or_init(|| Golden::start(2000))
}

impl Golden {
    /// Starts Valkey and Triton and loads all models; steps wait so long for the store.
    pub(crate) fn start(deadline_ms: u64) -> Self {
        let valkey = Valkey::start().expect("a running Valkey");
        write_golden(&valkey);
        let folder = tempfile::tempdir().expect("a folder");
        let models = assemble(&valkey, deadline_ms, &folder.path().join("repository"));
        let server = runtime::triton()
            .expect("an installed Triton and backends")
            .repository(folder.path().join("repository"))
            .start()
            .expect("a running Triton");
        let golden = Self {
            server,
            valkey,
            models,
            folder,
        };
        golden.load_all(&golden.server);
        golden
    }

    /// Another Triton on the same repository, with some more arguments.
    pub(crate) fn another(&self, arguments: &[String]) -> TritonServer {
        let server = runtime::triton()
            .expect("an installed Triton and backends")
            .repository(self.repository());
        let server = arguments
            .iter()
            .fold(server, |server, argument| server.argument(argument));
        let server = server.start().expect("a running Triton");
        self.load_all(&server);
        server
    }

    fn load_all(&self, server: &TritonServer) {
        for model in self.models() {
            if let Err(error) = server.load(model) {
                panic!("{error}\n{}", server.log());
            }
        }
    }

    /// The model repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
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

/// The definition whose features are the golden pipeline's.
pub(crate) fn retail() -> Pipeline {
    let definition = runtime::workspace().join("examples/retail/pipeline.toml");
    Pipeline::load(&definition).expect("the retail pipeline")
}

/// examples/retail/pipeline.toml, as the golden pipeline differs from it.
pub(crate) fn pipeline(valkey: &Valkey) -> Pipeline {
    let mut pipeline = retail();
    pipeline.ranking.topk = 20;
    pipeline.store.redis_url = valkey.url(0).trim_end_matches("/0").to_owned();
    pipeline
}

fn assemble(valkey: &Valkey, deadline_ms: u64, repository: &Path) -> Vec<ModelConfig> {
    let mut pipeline = pipeline(valkey);
    pipeline.store.deadline_ms = deadline_ms;
    let folder = tempfile::tempdir().expect("a folder");
    let artefacts = artefacts(&pipeline, folder.path());
    assemble::assemble(&pipeline, &artefacts, RELEASE, repository).expect("a model repository");
    steps::models(&pipeline, &artefacts.defaults, assemble::VERSION).expect("the models")
}

/// The golden run's artefacts; the workflows are written into `folder`.
pub(crate) fn artefacts(pipeline: &Pipeline, folder: &Path) -> Artefacts {
    let workflows = Group::ALL.map(|group| {
        let place = folder.join(group.as_str());
        golden_workflow(group, &place);
        (group, place)
    });
    let reference = |name: &str| data(&format!("reference/{name}"));
    Artefacts {
        workflows: workflows.into(),
        query_tower: reference("query_tower.onnx"),
        ranker: reference("dlrm_ranking.onnx"),
        index: reference("index.faiss"),
        tables: [
            ("item_image_embeddings", "lookup_embeddings_image.npy"),
            ("item_description_embeddings", "lookup_embeddings_text.npy"),
        ]
        .map(|(tensor, file)| (tensor.to_owned(), reference(file)))
        .into(),
        defaults: Defaults::of(pipeline).expect("defaults"),
        ..Artefacts::default()
    }
}
