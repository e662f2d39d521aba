//! The rendered repositories: well-formed, wired without a gap, and the contract's, tensor for tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use saker_assemble::{self as assemble, Artefacts, pbtxt::ModelConfig, steps};
use saker_contract::Step;
use saker_contract::ensemble::ENSEMBLE;
use saker_pipeline::{Default as Fallback, EntityType, Group, Pipeline};
use saker_serving::defaults::Defaults;
use saker_serving::entities::{Compare, settle};
use saker_serving::releases::Repository;
use saker_serving::views::feature_view;
use saker_store::feast::{
    self, EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, entity_key,
};
use saker_store::{Connection, Pipeline as Commands, Settings};
use saker_testing::valkey::Valkey;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pipeline(name: &str) -> Pipeline {
    Pipeline::load(&root().join("examples").join(name).join("pipeline.toml")).unwrap()
}

fn models(name: &str) -> Vec<ModelConfig> {
    let pipeline = pipeline(name);
    let mut defaults = Defaults::default();
    for column in pipeline.user.stored() {
        defaults.user.insert(column.name.clone(), 33.0);
    }
    for column in pipeline.item.stored() {
        defaults.item.insert(column.name.clone(), -1.0);
    }
    steps::models(&pipeline, &defaults, 1).unwrap()
}

#[test]
fn model_repository_is_what_retail_renders() {
    let rendered = tempfile::tempdir().unwrap();
    assemble::render(&pipeline("retail"), rendered.path()).unwrap();
    let configs = |folder: &Path| -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        folders
            .map(|entry| {
                let text = fs::read_to_string(entry.path().join("config.pbtxt")).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect()
    };
    let (rendered, committed) = (
        configs(rendered.path()),
        configs(&root().join("model_repository")),
    );
    assert_eq!(committed.len(), 17);
    let advice = "run `saker assemble retail --config-only --output model_repository`";
    assert_eq!(
        rendered.keys().collect::<Vec<_>>(),
        committed.keys().collect::<Vec<_>>(),
        "{advice}"
    );
    for (model, text) in &rendered {
        assert_eq!(text, &committed[model], "{model}: {advice}");
    }
}

/// Every step of the contract is a model of some ensemble, under the contract's backend.
#[test]
fn every_step_of_the_contract_is_assembled() {
    let folder = tempfile::tempdir().unwrap();
    assemble::render(&pipeline("retail"), folder.path()).unwrap();
    for step in Step::ALL {
        let config = fs::read_to_string(folder.path().join(step.model()).join("config.pbtxt"));
        let config = config.unwrap_or_else(|error| panic!("no model of step {step}: {error}"));
        let backend = format!("backend: \"{}\"\n", step.backend());
        assert!(config.contains(&backend), "{step}: {config}");
    }
}

/// Inputs and outputs as the contract's table writes them: `?` optional, ` f` FP32, ` f64` FP32 of that width.
#[test]
fn retail_is_the_contract() {
    const USER: &str = "user_id, age_norm f, age_binned, gender, top_category";
    const CONTEXT: &str =
        "device_type, hour_sine f, hour_cosine f, day_of_week_sine f, day_of_week_cosine f";
    const ITEM: &str = "item_id, category_l1, category_l2, item_gender, price_log_norm f";
    const VECTORS: &str = "item_image_embeddings f[64], item_description_embeddings f[64]";
    const STORED_USER: &str = "user_id, age, gender, top_category";
    const STORED_ITEM: &str = "item_id, price f, category_l1, category_l2, item_gender";
    const SCORE: &str = "click/binary_classification_task f[1]";
    const ANSWER: &str = "ordered_ids, ordered_scores f";
    // Beyond the reference: the release that answered, for those who ask.
    const ANSWER_OF_RELEASE: &str = "ordered_ids, ordered_scores f, release text";
    let all = format!("{USER}, {CONTEXT}, {ITEM}, {VECTORS}");
    let expected = [
        (
            "context_preprocessor",
            "request_defaults",
            "user_id?, device_type?, timestamp?",
            "user_id, device_type, timestamp",
        ),
        (
            "nvt_context_transform",
            "feature_transform",
            "device_type, timestamp",
            CONTEXT,
        ),
        (
            "feast_user_lookup",
            "feature_lookup",
            "user_id, device_type?",
            &format!("{STORED_USER}, degraded"),
        ),
        ("nvt_user_transform", "feature_transform", STORED_USER, USER),
        ("query_tower", "onnxruntime", USER, "output_1 f[64]"),
        (
            "faiss_retrieval",
            "faiss_retrieval",
            "output_1 f[64]",
            "candidate_ids",
        ),
        (
            "filter_seen_items",
            "bloom_filter",
            "user_id, candidate_ids, top_category?, degraded?",
            "filtered_ids, degraded",
        ),
        (
            "feast_item_lookup",
            "feature_lookup",
            "filtered_ids",
            STORED_ITEM,
        ),
        ("nvt_item_transform", "feature_transform", STORED_ITEM, ITEM),
        (
            "multimodal_embedding_lookup",
            "embedding_lookup",
            "item_id",
            VECTORS,
        ),
        ("unroll_features", "unroll", &all, &all),
        ("dlrm_ranking", "onnxruntime", &all, SCORE),
        (
            "softmax_sampling",
            "softmax_sampling",
            &format!("item_id, {SCORE}, user_id?"),
            ANSWER,
        ),
        ("item_id_decoder", "id_decode", ANSWER, ANSWER_OF_RELEASE),
        (
            "ensemble_model",
            "",
            "user_id?, device_type?, timestamp?",
            &format!("{ANSWER_OF_RELEASE}, degraded"),
        ),
    ];
    let tensors = |tensors: &[assemble::pbtxt::Tensor]| -> String {
        let text = tensors.iter().map(|tensor| {
            let mut text = tensor.name.clone();
            if tensor.data_type == assemble::pbtxt::DataType::Fp32 {
                text += " f";
            }
            if tensor.data_type == assemble::pbtxt::DataType::String {
                assert_eq!(tensor.dims, [1]);
                text += " text";
            }
            if let [-1, width] = tensor.dims[..] {
                text += &format!("[{width}]");
            }
            if tensor.optional {
                text += "?";
            }
            text
        });
        text.collect::<Vec<_>>().join(", ")
    };
    let models = models("retail");
    assert_eq!(models.len(), expected.len());
    for (model, (name, backend, inputs, outputs)) in models.iter().zip(expected) {
        assert_eq!(
            (model.name.as_str(), model.backend.as_str()),
            (name, backend)
        );
        assert_eq!(tensors(&model.inputs), inputs, "inputs of {name}");
        assert_eq!(tensors(&model.outputs), outputs, "outputs of {name}");
    }
    let value = |model: &str, key: &str| {
        models
            .iter()
            .find(|config| config.name == model)
            .unwrap()
            .parameters[key]
            .clone()
    };
    assert_eq!(value("feast_user_lookup", "DEFAULT_USER_AGE"), "33");
    assert_eq!(value("faiss_retrieval", "RETRIEVAL_TOPK"), "300");
    assert_eq!(value("softmax_sampling", "RANKING_TOPK"), "10");
    assert_eq!(value("softmax_sampling", "DIVERSITY_MODE"), "false");
    assert_eq!(
        value("filter_seen_items", "REDIS_URL"),
        "redis://127.0.0.1:6379/1"
    );
}

/// Triton's ensembles do not survive a step that fails while another one runs.
#[test]
fn no_two_steps_can_run_at_once() {
    for dataset in ["retail", "movielens"] {
        let models = models(dataset);
        let ensemble = models.last().unwrap();
        for pair in ensemble.steps.windows(2) {
            let [before, step] = pair else { unreachable!() };
            let given: Vec<&String> = before.outputs.iter().map(|(_, target)| target).collect();
            assert!(
                step.inputs
                    .iter()
                    .any(|(_, source)| given.contains(&source)),
                "{dataset}: {} does not wait for {}",
                step.model,
                before.model
            );
        }
        // Only the first step starts by itself.
        let from_client: Vec<&str> = ensemble
            .steps
            .iter()
            .filter(|step| {
                let own =
                    |source: &String| ensemble.inputs.iter().any(|input| input.name == *source);
                step.inputs.iter().any(|(_, source)| own(source))
            })
            .map(|step| step.model.as_str())
            .collect();
        assert_eq!(from_client, ["context_preprocessor"], "{dataset}");
    }
}

#[test]
fn every_step_gets_tensors_that_an_earlier_one_gave() {
    for dataset in ["retail", "movielens"] {
        let models = models(dataset);
        let ensemble = models.last().unwrap();
        let kind = |tensor: &assemble::pbtxt::Tensor| (tensor.data_type, tensor.dims.clone());
        let mut given: BTreeMap<String, _> = ensemble
            .inputs
            .iter()
            .map(|t| (t.name.clone(), kind(t)))
            .collect();
        for step in &ensemble.steps {
            let model = models
                .iter()
                .find(|model| model.name == step.model)
                .unwrap();
            assert_eq!(
                step.inputs.len(),
                model.inputs.len(),
                "{dataset}, {}",
                step.model
            );
            for (tensor, (name, source)) in model.inputs.iter().zip(&step.inputs) {
                assert_eq!(&tensor.name, name);
                assert_eq!(
                    given.get(source),
                    Some(&kind(tensor)),
                    "{dataset}, {}: {name} from {source}",
                    step.model
                );
            }
            for (name, target) in &step.outputs {
                let tensor = model.outputs.iter().find(|tensor| &tensor.name == name);
                let tensor =
                    tensor.unwrap_or_else(|| panic!("{dataset}, {}: no output {name}", step.model));
                let earlier = given.insert(target.clone(), kind(tensor));
                assert!(
                    earlier.is_none(),
                    "{dataset}, {}: {target} is given twice",
                    step.model
                );
                // Triton refuses an ensemble with a tensor that nobody reads.
                let read = ensemble
                    .steps
                    .iter()
                    .flat_map(|step| &step.inputs)
                    .any(|(_, source)| source == target);
                let answered = ensemble.outputs.iter().any(|output| &output.name == target);
                assert!(
                    read || answered,
                    "{dataset}, {}: nobody reads {target}",
                    step.model
                );
            }
        }
        for output in &ensemble.outputs {
            assert_eq!(
                given.get(&output.name),
                Some(&kind(output)),
                "{dataset}: {}",
                output.name
            );
        }
    }
}

#[test]
fn configs_are_well_formed_protobuf_text() {
    for dataset in ["retail", "movielens"] {
        for model in models(dataset) {
            let text = model.render();
            let fields = parse(&mut tokens(&text).into_iter().peekable(), None);
            let count = |name: &str| fields.iter().filter(|field| field.as_str() == name).count();
            assert_eq!(
                count("name"),
                1 + model.inputs.len() + model.outputs.len(),
                "{text}"
            );
            assert_eq!(count("parameters"), model.parameters.len(), "{text}");
            assert_eq!(count("step"), model.steps.len(), "{text}");
            assert_eq!(count("max_batch_size"), 1, "{text}");
        }
    }
}

/// The tokens of the protobuf text format: names and numbers, strings, punctuation.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '"' {
            let mut string = String::from('"');
            while let Some(next) = characters.next() {
                string.push(next);
                match next {
                    '\\' => string.push(characters.next().expect("a string ends in a backslash")),
                    '"' => break,
                    '\n' => panic!("a string holds a line break: {string}"),
                    _ => {}
                }
            }
            assert!(
                string.len() > 1 && string.ends_with('"'),
                "an open string: {string}"
            );
            tokens.push(string);
        } else if "{}[]:,".contains(character) {
            tokens.push(character.to_string());
        } else if !character.is_whitespace() {
            let mut word = String::from(character);
            while let Some(next) =
                characters.next_if(|next| next.is_alphanumeric() || "_-.".contains(*next))
            {
                word.push(next);
            }
            tokens.push(word);
        }
    }
    tokens
}

/// Reads fields up to `end` and gives the names of all of them, those within others too, a list's name once per element.
fn parse(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
    end: Option<&str>,
) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let Some(name) = tokens.next() else {
            assert_eq!(end, None, "the text ends within a message");
            return names;
        };
        if Some(name.as_str()) == end {
            return names;
        }
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{name} is no field name"
        );
        if tokens.peek().is_some_and(|token| token == ":") {
            tokens.next();
        }
        let value = tokens.next().expect("a field without a value");
        match value.as_str() {
            "{" => {
                names.push(name);
                names.extend(parse(tokens, Some("}")));
            }
            "[" => loop {
                match tokens.next().expect("an open list").as_str() {
                    "{" => {
                        names.push(name.clone());
                        names.extend(parse(tokens, Some("}")));
                    }
                    "]" => panic!("a list of {name} ends in a comma, or is empty"),
                    scalar => assert!(!"}:,".contains(scalar), "{scalar} in a list"),
                }
                match tokens.next().expect("an open list").as_str() {
                    "," => {}
                    "]" => break,
                    other => panic!("{other} after an element of {name}"),
                }
            },
            scalar => {
                assert!(!"}]:,".contains(scalar), "{name} has the value {scalar}");
                names.push(name);
            }
        }
    }
}

/// A run's artefacts, small and without sense.
fn artefacts(folder: &Path) -> (Pipeline, Artefacts) {
    let pipeline = pipeline("retail");
    let file = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        path
    };
    let mut artefacts = Artefacts {
        query_tower: file("query_tower.onnx"),
        ranker: file("dlrm_ranking.onnx"),
        index: file("index.faiss"),
        defaults: Defaults::of(&pipeline).unwrap(),
        ..Artefacts::default()
    };
    for group in Group::ALL {
        file(&format!("{}/workflow.json", group.as_str()));
        artefacts
            .workflows
            .insert(group, folder.join(group.as_str()));
    }
    file("item/categories/unique.item_id.parquet");
    for embedding in &pipeline.item.embeddings {
        artefacts.tables.insert(
            embedding.name.clone(),
            file(&format!("{}.npy", embedding.name)),
        );
    }
    (pipeline, artefacts)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn one_release_stands_in_every_model() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, artefacts) = artefacts(folder.path());
    let target = folder.path().join("repository");
    let assembled = assemble::assemble(&pipeline, &artefacts, "first", &target).unwrap();
    assert_eq!((assembled.version, assembled.waits), (1, false));

    assert_eq!(
        json(&target.join("releases.json"))["releases"]["1"],
        "first"
    );
    let manifest = json(&target.join("manifest-1.json"));
    assert_eq!(manifest["release"], "first");
    assert_eq!(manifest["pipeline"]["pipeline"]["name"], "retail");
    for model in steps::models(&pipeline, &artefacts.defaults, 1).unwrap() {
        let version = target.join(&model.name).join("1");
        let config = fs::read_to_string(target.join(&model.name).join("config.pbtxt")).unwrap();
        if model.name == ENSEMBLE {
            assert_eq!(fs::read_dir(version).unwrap().count(), 0);
            continue;
        }
        assert!(
            config.contains("version_policy: { specific { versions: [ 1 ] } }"),
            "{config}"
        );
        let release = json(&version.join("release.json"));
        assert_eq!(release["format"], 2);
        assert_eq!(release["release"], "first", "{}", model.name);
        assert_eq!(release["parameters"], serde_json::json!({}));
        assert_eq!(release["files"], manifest["models"][&model.name]["files"]);
        for (file, hash) in release["files"].as_object().unwrap() {
            assert!(version.join(file).is_file(), "{}: {file}", model.name);
            assert_eq!(hash.as_str().unwrap().len(), 64);
        }
    }
    for file in [
        "nvt_item_transform/1/workflow.json",
        "nvt_item_transform/1/categories/unique.item_id.parquet",
        "item_id_decoder/1/categories/unique.item_id.parquet",
        "multimodal_embedding_lookup/1/item_image_embeddings.npy",
        "faiss_retrieval/1/index.faiss",
        "query_tower/1/model.onnx",
        "dlrm_ranking/1/model.onnx",
    ] {
        assert!(target.join(file).is_file(), "{file}");
    }
    Repository::open(&target).unwrap().verify(1).unwrap();
}

/// Every config.pbtxt of a repository.
fn configs(target: &Path) -> BTreeMap<String, String> {
    let repository = Repository::open(target).unwrap();
    let mut models = repository.models().unwrap();
    models.push(ENSEMBLE.to_owned());
    let config = |model: String| {
        let text = repository.config(&model).unwrap();
        (model, text)
    };
    models.into_iter().map(config).collect()
}

#[test]
fn a_second_release_stands_beside_the_first_with_its_own_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pipeline, mut artefacts) = artefacts(folder.path());
    pipeline.retrieval.search_parameters = "nprobe=8".to_owned();
    let target = folder.path().join("repository");
    assemble::assemble(&pipeline, &artefacts, "first", &target).unwrap();
    let by_hand = target.join("dlrm_ranking/config.pbtxt");
    let text = fs::read_to_string(&by_hand).unwrap() + "dynamic_batching { }\n";
    fs::write(&by_hand, text).unwrap();
    let before = configs(&target);

    // What a later run learns or was told to do otherwise …
    pipeline.ranking.topk = 7;
    pipeline.retrieval.search_parameters = String::new();
    let age = |column: &&mut saker_pipeline::Column| column.name == "age";
    pipeline.user.columns.iter_mut().find(age).unwrap().default = Fallback::Number(41.0);
    artefacts.defaults = Defaults::of(&pipeline).unwrap();
    // … and where it runs now.
    pipeline.store.redis_url = "redis://me:secret@elsewhere:6379".to_owned();
    let assembled = assemble::assemble(&pipeline, &artefacts, "second", &target).unwrap();
    assert_eq!((assembled.version, assembled.waits), (2, true));
    assert_eq!(assembled.changed, Vec::<String>::new());

    let repository = Repository::open(&target).unwrap();
    repository.verify(1).unwrap();
    repository.verify(2).unwrap();
    assert_eq!(repository.serving().unwrap(), 1, "it waits to be promoted");
    let own = |model: &str| json(&target.join(model).join("2/release.json"))["parameters"].clone();
    assert_eq!(
        own("feast_user_lookup"),
        serde_json::json!({ "DEFAULT_USER_AGE": "41" })
    );
    assert_eq!(
        own("softmax_sampling"),
        serde_json::json!({ "RANKING_TOPK": "7" })
    );
    assert_eq!(
        own("faiss_retrieval"),
        serde_json::json!({ "SEARCH_PARAMETERS": null })
    );
    assert_eq!(own("query_tower"), serde_json::json!({}));
    for (model, text) in configs(&target) {
        // With a login, the address is in the environment of the server and in no file.
        let moved = before[&model]
            .replace("redis://127.0.0.1:6379/0", "env:SAKER_REDIS_URL#0")
            .replace(
                "redis://127.0.0.1:6379/1",
                "env:SAKER_SEEN_URL,SAKER_REDIS_URL#1",
            )
            .replace(
                "redis://127.0.0.1:6379/3",
                "env:SAKER_POPULARITY_URL,SAKER_REDIS_URL#3",
            );
        assert_eq!(
            text, moved,
            "{model}: only where the store is has changed, for all releases"
        );
    }
    let manifest = fs::read_to_string(target.join("manifest-2.json")).unwrap();
    assert!(manifest.contains("redis://elsewhere:6379") && !manifest.contains("secret"));

    // The same id is another release's; a crash before the id was written down leaves nothing.
    let error = assemble::assemble(&pipeline, &artefacts, "second", &target).unwrap_err();
    assert!(
        error.to_string().contains("second already exists in"),
        "{error:#}"
    );
    artefacts.index = folder.path().join("no such index");
    assemble::assemble(&pipeline, &artefacts, "third", &target).unwrap_err();
    assert_eq!(repository.index().unwrap().releases.len(), 2);
    assert!(
        target.join("query_tower/3").exists(),
        "half a release, which nobody names"
    );
    assert_eq!(repository.prune(3, &[1]).unwrap(), Vec::<u64>::new());
    assert!(!target.join("query_tower/3").exists(), "swept");
    let pruned = repository.prune(1, &[]).unwrap();
    assert_eq!(pruned, [1]);
    assert!(!target.join("query_tower/1").exists() && target.join("query_tower/2").exists());
}

#[test]
fn other_tensors_make_a_new_repository() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pipeline, mut artefacts) = artefacts(folder.path());
    let target = folder.path().join("repository");
    assemble::assemble(&pipeline, &artefacts, "first", &target).unwrap();
    fs::write(target.join("left over"), "").unwrap();
    let dropped = pipeline.user.features.pop().unwrap();
    artefacts.defaults = Defaults::of(&pipeline).unwrap();
    let assembled = assemble::assemble(&pipeline, &artefacts, "second", &target).unwrap();
    assert_eq!((assembled.version, assembled.waits), (2, false));
    for model in [
        "nvt_user_transform",
        "query_tower",
        "dlrm_ranking",
        "ensemble_model",
    ] {
        assert!(
            assembled.changed.iter().any(|name| name == model),
            "{}: {assembled:?}",
            dropped.name
        );
    }
    assert!(
        !assembled
            .changed
            .iter()
            .any(|name| name == "faiss_retrieval")
    );
    let repository = Repository::open(&target).unwrap();
    assert_eq!(repository.serving().unwrap(), 2);
    repository.verify(2).unwrap();
    assert!(!target.join("left over").exists() && !target.join("query_tower/1").exists());
}

#[test]
fn a_missing_artefact_leaves_the_old_repository() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, mut artefacts) = artefacts(folder.path());
    let target = folder.path().join("repository");
    assemble::assemble(&pipeline, &artefacts, "first", &target).unwrap();
    artefacts.index = folder.path().join("no such index");
    let error = assemble::assemble(&pipeline, &artefacts, "second", &target).unwrap_err();
    assert!(format!("{error:#}").contains("no such index"), "{error:#}");
    let releases = fs::read_to_string(target.join("releases.json")).unwrap();
    assert!(releases.contains("first") && !releases.contains("second"));
}

/// The formats as they were first written: what reads them reads these.
#[test]
fn written_formats_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let content = "3dd1971ea7075270a3549139407d505e732acbb6080aa276bb6afa24b3c1e5a2"; // of "a vector"
    write(
        "releases.json",
        r#"{"format": 1, "releases": {"4": "a", "5": "b"}, "next": 6, "promoted": [4], "failed": {"5": "why"}}"#,
    );
    write(
        "ensemble_model/config.pbtxt",
        "step [ {\n  model_name: \"m\"\n  model_version: 4\n} ]\n",
    );
    write(
        "m/4/release.json",
        r#"{"format": 2, "release": "a", "files": {"x": "00"}, "parameters": {}}"#,
    );
    write("m/4/x", "a vector");
    let manifest = |hash: &str| {
        format!(
            r#"{{"format": 1, "release": "a", "version": 4, "created": 1773500966, "saker": "0.1.0",
            "data": {{"first": 1, "last": 2, "interactions": 3}}, "metrics": null, "pipeline": {{}},
            "models": {{"m": {{"interface": "00", "parameters": {{}}, "files": {{"x": "{hash}"}}}}}}}}"#
        )
    };
    write("manifest-4.json", &manifest("00"));
    let repository = Repository::open(folder.path()).unwrap();
    let error = repository.verify(4).unwrap_err().to_string();
    let found = error
        .split("SHA-256 is ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .unwrap();
    assert!(
        error.contains("m/4/x is damaged") && error.ends_with("says 00"),
        "{error}"
    );
    assert_eq!(found, content);
    write("manifest-4.json", &manifest(found));
    let error = repository.verify(4).unwrap_err().to_string();
    assert!(error.contains("m/4/release.json is damaged"), "{error}");
    write(
        "m/4/release.json",
        &format!(
            r#"{{"format": 2, "release": "a", "files": {{"x": "{found}"}}, "parameters": {{}}}}"#
        ),
    );
    repository.verify(4).unwrap();
    let index = repository.index().unwrap();
    assert_eq!(
        (index.next, index.before(5), index.find("b").unwrap()),
        (6, Some(4), 5)
    );
    assert_eq!(index.find("4").unwrap(), 4);
    let unknown = index.find("c").unwrap_err().to_string();
    assert_eq!(
        unknown,
        "there is no release c; there are a (version 4), b (version 5)"
    );
    assert_eq!(
        repository
            .manifest(4)
            .unwrap()
            .record
            .data
            .unwrap()
            .interactions,
        3
    );
    write(
        "manifest-4.json",
        &manifest(found).replace("\"format\": 1", "\"format\": 9"),
    );
    let error = repository.verify(4).unwrap_err().to_string();
    assert!(
        error.contains("has format 9; this version reads format 1"),
        "{error}"
    );
    // An index of before there were several releases.
    write("releases.json", r#"{"format": 1, "releases": {"1": "a"}}"#);
    assert_eq!(repository.index().unwrap().next, 2);
}

#[test]
fn the_codes_of_texts_travel_with_the_release() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, mut artefacts) = artefacts(folder.path());
    let target = folder.path().join("repository");
    let parameter = |model: &str| {
        let text = Repository::open(&target).unwrap().config(model).unwrap();
        text.lines()
            .any(|line| line.contains("CODES") && line.contains("codes.json"))
    };
    for (group, file) in [(Group::User, "user.json"), (Group::Item, "item.json")] {
        let path = folder.path().join(file);
        fs::write(&path, format!("codes of {file}")).unwrap();
        artefacts.codes.insert(group, path);
    }
    assemble::assemble(&pipeline, &artefacts, "first", &target).unwrap();
    for (model, content) in [
        ("feast_user_lookup", Some("codes of user.json")),
        ("feast_item_lookup", Some("codes of item.json")),
        ("query_tower", None),
    ] {
        let file = fs::read_to_string(target.join(model).join("1/codes.json")).ok();
        assert_eq!(file.as_deref(), content, "{model}");
        assert_eq!(parameter(model), content.is_some(), "{model}");
    }
    // A release without texts reads none.
    artefacts.codes.clear();
    assemble::assemble(&pipeline, &artefacts, "second", &target).unwrap();
    let own = json(&target.join("feast_user_lookup/2/release.json"))["parameters"].clone();
    assert_eq!(own, serde_json::json!({ "CODES": null }));
}

/// The retail pipeline on an empty store.
fn on_a_store() -> (Pipeline, Valkey) {
    let valkey = Valkey::start().unwrap();
    let mut pipeline = pipeline("retail");
    pipeline.store.redis_url = valkey.url(0).trim_end_matches("/0").to_owned();
    (pipeline, valkey)
}

/// Writes a user row with all columns under these join keys, in a serialization.
fn write_user(
    valkey: &Valkey,
    pipeline: &Pipeline,
    version: EntityKeyVersion,
    join_keys: &[(&str, EntityId)],
    value: &dyn Fn(&str) -> Value,
) {
    let columns: Vec<String> = pipeline.user.stored().map(|c| c.name.clone()).collect();
    let values: Vec<Option<Value>> = columns.iter().map(|name| Some(value(name))).collect();
    let store = &pipeline.store;
    let view = FeatureView::new(
        &store.feast_project,
        &store.user_view,
        "any",
        version,
        columns,
    );
    let time = Timestamp::from_micros(1_790_000_000_000_000);
    let mut words = view.write(&EntityId::Int32(0), &values, time).unwrap();
    words[1] = entity_key(version, &store.feast_project, join_keys);
    let mut commands = Commands::new();
    commands.command(&words[1], |cmd| {
        words.iter().for_each(|word| {
            cmd.arg(word);
        });
    });
    let settings = Settings::parse(&valkey.url(0), None).unwrap();
    let mut connection = Connection::open(&settings).unwrap();
    connection
        .run(&commands, std::time::Duration::from_secs(5))
        .unwrap();
}

fn parameter(pipeline: &Pipeline, model: &str, key: &str) -> Option<String> {
    let defaults = Defaults::of(pipeline).unwrap();
    let mut models = steps::models(pipeline, &defaults, 1).unwrap();
    models.extend(assemble::fused::models(pipeline, &defaults, 1).unwrap());
    let model = models
        .into_iter()
        .find(|found| found.name == model)
        .unwrap();
    model.parameters.get(key).cloned()
}

#[test]
fn the_type_of_the_ids_is_what_the_store_holds() {
    for (kind, found) in [
        (feast::EntityType::Int32, None),
        (feast::EntityType::Int64, Some(EntityType::Int64)),
        (feast::EntityType::String, Some(EntityType::String)),
    ] {
        let (mut pipeline, valkey) = on_a_store();
        for user in 1..20 {
            let id = [("user_id", kind.id(user))];
            write_user(&valkey, &pipeline, EntityKeyVersion::V3, &id, &|_| {
                Value::Int64(1)
            });
        }
        let notes = settle(&mut pipeline, Compare::All).unwrap();
        assert_eq!(pipeline.store.entity_type, found, "{kind}");
        // The items were not written.
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("item_features"), "{notes:?}");
        let said = found.map(|kind| kind.as_str().to_owned());
        for model in ["feast_user_lookup", "fused_recommendation"] {
            assert_eq!(parameter(&pipeline, model, "ENTITY_TYPE"), said, "{model}");
        }
        assert_eq!(
            parameter(&pipeline, "feast_item_lookup", "ENTITY_TYPE"),
            None
        );
        // Everybody who builds a key builds this one.
        let user = &pipeline.user;
        let view = feature_view(&pipeline, user, &pipeline.store.user_view, ["age"]);
        assert_eq!(view.id(7), kind.id(7));
        let mut again = pipeline.clone();
        settle(&mut again, Compare::Types).unwrap();
        assert_eq!(again, pipeline);
    }
    let (mut pipeline, valkey) = on_a_store();
    valkey.kill();
    let notes = settle(&mut pipeline, Compare::All).unwrap();
    assert!(notes[0].contains("INT32"), "{notes:?}");
    assert_eq!(pipeline.store.entity_type, None);
}

#[test]
fn a_store_that_the_steps_cannot_read_is_refused_in_words() {
    use EntityKeyVersion::{V2, V3};
    let int = |_: &str| Value::Int32(1);
    let id = |id: i64| vec![("user_id", EntityId::Int64(id))];
    let pair = vec![
        ("user_id", EntityId::Int64(7)),
        ("shop_id", EntityId::String("north".into())),
    ];
    let customer = vec![("customer", EntityId::Int64(7))];
    let bytes = vec![("user_id", EntityId::Bytes(vec![7]))];
    let gender = |name: &str| match name {
        "gender" => Value::String("F".into()),
        _ => Value::Int32(1),
    };
    let age = |name: &str| match name {
        "age" => Value::Double(31.5),
        _ => Value::Int32(1),
    };
    type Case<'c> = (
        Vec<(&'static str, EntityId)>,
        EntityKeyVersion,
        &'c dyn Fn(&str) -> Value,
        &'c [&'c str],
    );
    let cases: [Case<'_>; 6] = [
        (
            pair,
            V3,
            &int,
            &["shop_id (STRING) and user_id (INT64)", "user_id alone"],
        ),
        (
            customer,
            V3,
            &int,
            &["customer (INT64)", "the definition's id is user_id"],
        ),
        (
            id(7),
            V2,
            &int,
            &["version 2", "entity_key_serialization", "is 3"],
        ),
        (
            bytes,
            V3,
            &int,
            &["user_id as BYTES", "INT32, INT64, STRING"],
        ),
        (
            id(7),
            V3,
            &gender,
            &["'gender' is STRING", "\"F\"", "int32", "codes"],
        ),
        (
            id(7),
            V3,
            &age,
            &["'age' is DOUBLE", "int32", "INT32, INT64"],
        ),
    ];
    for (join_keys, version, value, parts) in cases {
        let (mut pipeline, valkey) = on_a_store();
        write_user(&valkey, &pipeline, version, &join_keys, value);
        let error = settle(&mut pipeline, Compare::All).unwrap_err().to_string();
        for part in parts.iter().chain(&["user_features"]) {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    // Two types, of which the definition may name one.
    let (mut pipeline, valkey) = on_a_store();
    write_user(&valkey, &pipeline, V3, &id(7), &int);
    write_user(
        &valkey,
        &pipeline,
        V3,
        &[("user_id", EntityId::Int32(7))],
        &int,
    );
    for compare in [Compare::All, Compare::Types] {
        let error = settle(&mut pipeline, compare).unwrap_err().to_string();
        assert!(
            error.contains("INT32 and as INT64") && error.contains("entity_type"),
            "{error}"
        );
    }
    for kind in [EntityType::Int32, EntityType::Int64] {
        pipeline.store.entity_type = Some(kind);
        settle(&mut pipeline, Compare::All).unwrap();
        assert_eq!(pipeline.store.entity_type, Some(kind));
        let said = parameter(&pipeline, "feast_user_lookup", "ENTITY_TYPE");
        assert_eq!(said.as_deref(), Some(kind.as_str()));
    }
    pipeline.store.entity_type = Some(EntityType::String);
    let error = settle(&mut pipeline, Compare::All).unwrap_err().to_string();
    assert!(
        error.contains("is STRING: nobody would be found"),
        "{error}"
    );
}
