//! The examples are valid. An error names the fault and the accepted values.

use std::path::Path;

use saker_pipeline::{Group, Pipeline};

fn example(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}/pipeline.toml"));
    std::fs::read_to_string(path).expect("an example's definition")
}

#[test]
fn examples_are_valid() {
    for name in ["retail", "movielens"] {
        let pipeline =
            Pipeline::parse(&example(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pipeline.pipeline.name, name);
    }
}

#[test]
fn retail_has_the_tensors_of_the_contract() {
    let retail = Pipeline::parse(&example("retail")).unwrap();
    let names = |group| retail.workflow(group).output_names().unwrap();
    assert_eq!(
        names(Group::User),
        [
            "user_id",
            "age_norm",
            "age_binned",
            "gender",
            "top_category"
        ]
    );
    assert_eq!(
        names(Group::Context),
        [
            "device_type",
            "hour_sine",
            "hour_cosine",
            "day_of_week_sine",
            "day_of_week_cosine"
        ]
    );
    assert_eq!(
        names(Group::Item),
        [
            "item_id",
            "category_l1",
            "category_l2",
            "item_gender",
            "price_log_norm"
        ]
    );
}

/// Replaces a part of the retail definition and returns the error.
fn error(from: &str, to: &str) -> String {
    let text = example("retail");
    assert!(text.contains(from), "{from} is not in the example");
    match Pipeline::parse(&text.replacen(from, to, 1)) {
        Ok(_) => panic!("{to} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn errors_name_key_value_and_what_is_accepted() {
    let cases = [
        (
            "topk = 300",
            "topk = 0",
            &["retrieval.topk = 0", "1 or more"][..],
        ),
        (
            "topk = 10",
            "topk = 301",
            &["ranking.topk = 301", "1 to retrieval.topk, which is 300"],
        ),
        (
            "topk = 300",
            "top_k = 300",
            &["unknown field `top_k`", "`topk`", "`search_parameters`"],
        ),
        (
            "name = \"retail\"",
            "name = \"re tail\"",
            &["pipeline.name = re tail", "letters, digits"],
        ),
        (
            "serialization = 3",
            "serialization = 4",
            &["store.entity_key_serialization = 4", "2 or 3"],
        ),
        (
            "entity_key_serialization = 3",
            "entity_type = \"int64\"",
            &["`int64`", "`INT32`, `INT64`, `STRING`"],
        ),
        (
            "entity_key_serialization = 3",
            "item_entity_type = \"BYTES\"",
            &["`BYTES`", "`INT32`, `INT64`, `STRING`"],
        ),
        (
            "redis://127.0.0.1:6379",
            "http://127.0.0.1:6379",
            &["store.redis_url", "rediss://"],
        ),
        (
            "redis://127.0.0.1:6379",
            "redis://127.0.0.1:6379/2",
            &["store.redis_url", "without a database"],
        ),
        (
            "columns = [\"age\"]",
            "columns = [\"ages\"]",
            &["user.features.age_norm.columns = \"ages\"", "user_id, age"],
        ),
        (
            ", padding = -1",
            "",
            &["item.features.item_id = [Categorify]", "padding = -1"],
        ),
        (
            "default = 35",
            "default = \"median\"",
            &["user.columns.age.default = \"median\"", "\"mean\""],
        ),
        (
            "default = \"now\"",
            "default = \"today\"",
            &["context.columns.timestamp.default = \"today\"", "\"now\""],
        ),
        ("op = \"LogOp\"", "op = \"Log\"", &["Log", "`LogOp`"]),
        (
            "boundaries = [18, 25",
            "boundaries = [25, 18",
            &["user.features.age_binned.operators", "ascending"],
        ),
        (
            "popularity_category = \"top_",
            "popularity_category = \"",
            &["store.popularity_category = \"category\""],
        ),
        (
            "name = \"price_log_norm\"",
            "name = \"gender\"",
            &["item.features.gender = given twice", "tensor"],
        ),
        (
            "dim = 64\nsource",
            "dim = 0\nsource",
            &["item.embeddings.item_image_embeddings.dim = 0", "1 or more"],
        ),
        (
            "{item_id}.png",
            "item.png",
            &[
                "item.embeddings.item_image_embeddings.source.path = ",
                "{item_id}",
            ],
        ),
        ("source.output", "source.layer", &["layer", "output"]),
        (
            "source.columns = [\"description\"]",
            "source.columns = []",
            &[
                "item_description_embeddings.source.columns = []",
                "one or more",
            ],
        ),
        (
            "source.path = \"${SAKER_STATE}/retail/source/item_descriptions.parquet\"",
            "",
            &[
                "item_description_embeddings.source.columns = \"description\"",
                "text columns of [item]",
            ],
        ),
        (
            "source.path = \"${SAKER_STATE}/retail/source/item_descriptions.parquet\"\nsource.columns = [\"description\"]",
            "source.columns = [\"title\"]\nsource.id = \"sku\"",
            &[
                "item_description_embeddings.source.id = \"sku\"",
                "nothing without path",
            ],
        ),
        (
            "fused_recommendation = 2",
            "ranker = 2",
            &["serving.instances.ranker = 2", "dlrm_ranking"],
        ),
        (
            "[split]\nby = \"days\"",
            "[split]\ntest = 0.6\nvalidation = 0.4",
            &["split.test = 0.6", "below 1"],
        ),
        (
            "[split]\nby = \"days\"",
            "[split]\nby = \"days\"\ntest = 0.2",
            &["split.test = given", "test_days"],
        ),
        (
            "[split]\nby = \"days\"",
            "[split]\ntest_days = 2",
            &["split.test_days = given", "by = \"user\""],
        ),
        (
            "rating = \"event_type\"\n",
            "",
            &["data.interactions.ratings", "beside rating"],
        ),
        (
            "hours = 24",
            "hours = 24, last = 3",
            &["user.columns.top_category.derive", "either last or hours"],
        ),
        (
            "hours = 24",
            "hours = 200",
            &["user.columns.top_category.derive.hours = 200", "1 to 168"],
        ),
        (
            "format = \"parquet\"",
            "format = \"atomic\"",
            &[
                "data.interactions.path",
                "day_*.parquet",
                "format = \"parquet\"",
            ],
        ),
        (
            "title = \"title\"",
            "title = \"name\"",
            &["item.title = \"name\"", "text column of [item]"],
        ),
        (
            "{ name = \"gender\" }",
            "{ name = \"age\" }",
            &["user.columns.age = given twice"],
        ),
    ];
    for (from, to, expected) in cases {
        let message = error(from, to);
        for part in expected {
            assert!(
                message.contains(part),
                "{to}: \"{message}\" lacks \"{part}\""
            );
        }
    }
}

#[test]
fn a_password_is_in_no_message() {
    let message = error("redis://127.0.0.1:6379", "redis://me:hunter2@host/1");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn paths_take_variables() {
    let mut pipeline = Pipeline::parse(&example("movielens")).unwrap();
    pipeline.folder = "shop".into();
    assert_eq!(
        pipeline.resolve("data/users.parquet").unwrap(),
        Path::new("shop/data/users.parquet")
    );
    assert_eq!(
        pipeline.resolve("/data/users.parquet").unwrap(),
        Path::new("/data/users.parquet")
    );
    pipeline.state = Some("state".into());
    assert_eq!(
        pipeline.resolve("${SAKER_STATE}/retail/source").unwrap(),
        std::env::current_dir().unwrap().join("state/retail/source"),
        "the state folder starts at the working directory"
    );
    let home = std::env::var("HOME").unwrap();
    assert_eq!(
        pipeline.resolve("${HOME}/users").unwrap(),
        Path::new(&home).join("users")
    );
    let error = pipeline
        .resolve("${SAKER_NO_SUCH_VARIABLE}/users")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("SAKER_NO_SUCH_VARIABLE is not set"),
        "{error}"
    );
}

/// Every key of a definition, wherever it stands.
fn keys(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                found.push(key.clone());
                keys(value, found);
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_documentation_names_every_key() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pipeline.md"),
    )
    .unwrap();
    let mut found = Vec::new();
    for name in ["retail", "movielens"] {
        let pipeline = Pipeline::parse(&example(name)).unwrap();
        keys(&toml::Value::try_from(&pipeline).unwrap(), &mut found);
    }
    let of_operators = [
        "op",
        "boundaries",
        "function",
        "period",
        "padding",
        "dtype",
        "hash",
        "encode_type",
    ];
    let more = [
        "freq_threshold",
        "max_size",
        "num_buckets",
        "from",
        "last",
        "hours",
        "column",
        // Texts of the shop's own data.
        "view",
        "click",
        "cart",
        "purchase",
    ];
    for key in found
        .iter()
        .filter(|key| !of_operators.contains(&key.as_str()) && !more.contains(&key.as_str()))
    {
        assert!(
            text.contains(&format!("`{key}`"))
                || text.contains(&format!("`[{key}]`"))
                || text.contains(&format!(".{key}`"))
                || text.contains(&format!("`[{key}]`")),
            "docs/pipeline.md does not name `{key}`"
        );
    }
}
