//! Checks of a definition beyond its syntax, so that a mistake is reported here and not in a later step.

use saker_contract::{RawId, Step};
use saker_workflow::Operator;
use saker_workflow::operators::Categorify;

use crate::{
    Column, ColumnType, Default as Fallback, Derive, EmbeddingSource, Entity, Error, Feature,
    Format, Group, Parts, Pipeline,
};

/// The accepted value of a key that names a category column.
const CATEGORY: &str = "the name of an int32 column";

impl Pipeline {
    /// Checks every value. [`Pipeline::parse`] and [`Pipeline::load`] call it.
    ///
    /// # Errors
    /// Returns an error for the first invalid value, with its key and the accepted values.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_name()?;
        self.validate_interactions()?;
        self.validate_split()?;
        entity("user", &self.user)?;
        entity("item", &self.item)?;
        self.validate_context()?;
        self.validate_derived()?;
        self.validate_features()?;
        self.validate_embeddings()?;
        let training = self
            .towers
            .validate()
            .and_then(|()| self.ranker.validate())
            .and_then(|()| self.training.validate());
        training.map_err(|error| Error::invalid(error.key, error.value, error.expected))?;
        self.validate_top_k()?;
        self.validate_store()?;
        self.validate_serving()
    }

    fn validate_name(&self) -> Result<(), Error> {
        let name = &self.pipeline.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        check(
            !name.is_empty() && name.chars().all(plain),
            "pipeline.name",
            name,
            "letters, digits, - and _",
        )
    }

    fn validate_split(&self) -> Result<(), Error> {
        const SHARE: &str = "a share of at least 0, both together below 1";
        let split = self.split;
        let unread: [(&str, bool, &str); 2] = match split.parts() {
            Parts::User { test, validation } => {
                for (key, share) in [("split.test", test), ("split.validation", validation)] {
                    check(share >= 0.0 && test + validation < 1.0, key, share, SHARE)?;
                }
                let other = "nothing with by = \"user\"; test and validation are its shares";
                [
                    ("split.test_days", split.test_days.is_some(), other),
                    (
                        "split.validation_days",
                        split.validation_days.is_some(),
                        other,
                    ),
                ]
            }
            Parts::Days { .. } => {
                let other =
                    "nothing with by = \"days\"; test_days and validation_days are its days";
                [
                    ("split.test", split.test.is_some(), other),
                    ("split.validation", split.validation.is_some(), other),
                ]
            }
        };
        for (key, given, accepted) in unread {
            check(!given, key, "given", accepted)?;
        }
        Ok(())
    }

    fn validate_interactions(&self) -> Result<(), Error> {
        let Some(data) = &self.data else {
            return Ok(());
        };
        let interactions = &data.interactions;
        for (key, path) in [
            ("data.users.path", &data.users.path),
            ("data.items.path", &data.items.path),
            ("data.interactions.path", &interactions.path),
        ] {
            check(
                data.format == Format::Parquet || !path.contains('*'),
                key,
                quoted(path),
                "one file with format = \"atomic\"; patterns with format = \"parquet\"",
            )?;
        }
        check(
            data.encoding.is_none() || data.format == Format::Atomic,
            "data.encoding",
            "given",
            "nothing with format = \"parquet\", whose texts are UTF-8",
        )?;
        if let Some(missing) = interactions.missing_rating {
            check(
                missing.is_finite() && interactions.rating.is_some(),
                "data.interactions.missing_rating",
                missing,
                "a finite number beside rating, which names the column",
            )?;
        }
        if let Some(ratings) = &interactions.ratings {
            check(
                interactions.rating.is_some(),
                "data.interactions.ratings",
                "a table",
                "a table beside rating, which names the column that holds its texts",
            )?;
            check(
                !ratings.is_empty() && ratings.values().all(|rating| rating.is_finite()),
                "data.interactions.ratings",
                format!("{ratings:?}"),
                "at least one text with its number",
            )?;
        }
        if let Some(weak) = interactions.weak_from {
            check(
                interactions.positive_from.is_some_and(|from| weak < from),
                "data.interactions.weak_from",
                weak,
                "a rating below positive_from",
            )?;
        }
        Ok(())
    }

    fn validate_context(&self) -> Result<(), Error> {
        unique("context", &self.context.columns, &self.user.id)?;
        for column in &self.context.columns {
            let key = format!("context.columns.{}", column.name);
            check(
                column.kind != ColumnType::Text,
                format!("{key}.type"),
                "text",
                "int32 or float32",
            )?;
            check(
                column.derive.is_none(),
                format!("{key}.derive"),
                "a table",
                "nothing: a request brings the value",
            )?;
            check(
                column.codes.is_none(),
                format!("{key}.codes"),
                "set",
                "nothing: a request brings numbers, so the data must hold numbers too",
            )?;
            check(
                column.view.is_none(),
                format!("{key}.view"),
                quoted(column.view.as_deref().unwrap_or_default()),
                "nothing: a request brings the value",
            )?;
            default_of(&key, column)?;
            if let Fallback::Word(word) = &column.default {
                check(
                    word == "now",
                    format!("{key}.default"),
                    quoted(word),
                    "a number or \"now\"",
                )?;
            }
        }
        Ok(())
    }

    /// Columns that are computed from other columns.
    fn validate_derived(&self) -> Result<(), Error> {
        for (group, of) in [("user", &self.user), ("item", &self.item)] {
            for column in &of.columns {
                let Some(Derive::TopOfRecent {
                    column: source,
                    last,
                    hours,
                }) = &column.derive
                else {
                    continue;
                };
                let key = format!("{group}.columns.{}.derive", column.name);
                check(
                    group == "user",
                    format!("{key}.from"),
                    "top_of_recent",
                    "interaction_count for an item",
                )?;
                check(
                    int32(&self.item, source),
                    format!("{key}.column"),
                    quoted(source),
                    "an int32 column of [item]",
                )?;
                check(
                    last.is_some() != hours.is_some(),
                    key.as_str(),
                    "a table",
                    "either last or hours",
                )?;
                if let Some(last) = last {
                    check(*last > 0, format!("{key}.last"), last, "1 or more")?;
                }
                if let Some(hours) = hours {
                    check(
                        (1..=168).contains(hours),
                        format!("{key}.hours"),
                        hours,
                        "1 to 168, the week that serving remembers",
                    )?;
                    check(
                        column.kind == ColumnType::Int32
                            && matches!(column.default, Fallback::Number(_)),
                        format!("user.columns.{}", column.name),
                        "a float32, or a default of \"mean\"",
                        "type int32 and a number as default with hours",
                    )?;
                }
            }
        }
        Ok(())
    }

    fn validate_features(&self) -> Result<(), Error> {
        let mut names: Vec<&str> = Vec::new();
        for group in Group::ALL {
            let columns: Vec<&str> = match group {
                Group::User => ids_and_columns(&self.user),
                Group::Item => ids_and_columns(&self.item),
                Group::Context => self
                    .context
                    .columns
                    .iter()
                    .map(|column| column.name.as_str())
                    .collect(),
            };
            let features = self.features(group);
            check(
                !features.is_empty(),
                format!("{}.features", group.as_str()),
                "empty",
                "at least one feature",
            )?;
            for feature in features {
                let key = format!("{}.features.{}", group.as_str(), feature.name);
                self::feature(&key, feature, &columns)?;
                check(
                    !names.contains(&feature.name.as_str()),
                    key,
                    "given twice",
                    UNIQUE,
                )?;
                names.push(&feature.name);
            }
        }
        self.validate_item_id()
    }

    /// Checks the item id's feature: item ids are decoded from its codes, and code 0 pads short rows.
    fn validate_item_id(&self) -> Result<(), Error> {
        const ACCEPTED: &str = "one feature of the item id's name whose only operator is \
            { op = \"Categorify\", padding = -1 }";
        let feature = self
            .item
            .features
            .iter()
            .find(|feature| feature.name == self.item.id);
        let key = format!("item.features.{}", self.item.id);
        let Some(feature) = feature else {
            return Err(Error::invalid(key, "absent", ACCEPTED));
        };
        let decodable = matches!(
            feature.operators.as_slice(),
            [Operator::Categorify(Categorify {
                num_buckets: 1,
                padding: Some(RawId::NONE),
                ..
            })]
        );
        check(
            decodable && feature.columns() == [self.item.id.as_str()],
            key,
            operators(feature),
            ACCEPTED,
        )
    }

    fn validate_embeddings(&self) -> Result<(), Error> {
        check(
            self.user.embeddings.is_empty(),
            "user.embeddings",
            "given",
            "embeddings of [item] only",
        )?;
        for embedding in &self.item.embeddings {
            let key = format!("item.embeddings.{}", embedding.name);
            check(
                embedding.dim > 0,
                format!("{key}.dim"),
                embedding.dim,
                "1 or more",
            )?;
            let taken = Group::ALL.iter().any(|group| {
                self.features(*group)
                    .iter()
                    .any(|f| f.name == embedding.name)
            });
            let twice = self
                .item
                .embeddings
                .iter()
                .filter(|other| other.name == embedding.name)
                .count()
                > 1;
            check(
                !taken && !twice,
                format!("{key}.name"),
                quoted(&embedding.name),
                UNIQUE,
            )?;
            self.validate_source(&format!("{key}.source"), &embedding.source)?;
        }
        Ok(())
    }

    fn validate_source(&self, key: &str, source: &EmbeddingSource) -> Result<(), Error> {
        match source {
            EmbeddingSource::Text { columns } => self.validate_texts(key, columns),
            EmbeddingSource::Sentence {
                columns,
                path: None,
                id,
                ..
            } => {
                self.validate_texts(key, columns)?;
                check(
                    id.is_none(),
                    format!("{key}.id"),
                    quoted(id.as_deref().unwrap_or_default()),
                    "nothing without path: the columns are those of [item]",
                )
            }
            EmbeddingSource::Sentence { columns, .. } => check(
                !columns.is_empty(),
                format!("{key}.columns"),
                "[]",
                "one or more columns of the table in path",
            ),
            EmbeddingSource::Image { path, .. } => {
                let place = format!("{{{}}}", self.item.id);
                check(
                    path.contains(&place),
                    format!("{key}.path"),
                    quoted(path),
                    format!("a path with {place}, which is replaced by the item's id"),
                )
            }
            EmbeddingSource::Cooccurrence | EmbeddingSource::File { .. } => Ok(()),
        }
    }

    fn validate_texts(&self, key: &str, columns: &[String]) -> Result<(), Error> {
        check(
            !columns.is_empty(),
            format!("{key}.columns"),
            "[]",
            "one or more text columns of [item]",
        )?;
        for name in columns {
            let text = self
                .item
                .column(name)
                .is_some_and(|column| column.kind == ColumnType::Text);
            check(
                text,
                format!("{key}.columns"),
                quoted(name),
                "names of text columns of [item]",
            )?;
        }
        Ok(())
    }

    fn validate_top_k(&self) -> Result<(), Error> {
        let (retrieval, ranking) = (&self.retrieval, &self.ranking);
        check(
            retrieval.topk > 0,
            "retrieval.topk",
            retrieval.topk,
            "1 or more",
        )?;
        check(
            retrieval.threads > 0,
            "retrieval.threads",
            retrieval.threads,
            "1 or more",
        )?;
        check(
            !retrieval.index.is_empty(),
            "retrieval.index",
            "\"\"",
            "a FAISS factory string, such as Flat or HNSW32",
        )?;
        check(
            (1..=retrieval.topk).contains(&ranking.topk),
            "ranking.topk",
            ranking.topk,
            format!("1 to retrieval.topk, which is {}", retrieval.topk),
        )
    }

    fn validate_store(&self) -> Result<(), Error> {
        let store = &self.store;
        let address = store
            .redis_url
            .strip_prefix("redis://")
            .or_else(|| store.redis_url.strip_prefix("rediss://"));
        check(
            address
                .is_some_and(|rest| !rest.is_empty() && !rest.trim_end_matches('/').contains('/')),
            "store.redis_url",
            // It may hold a password, which no message shows.
            "not shown",
            "redis://[user:password@]host[:port] or rediss://…, without a database number",
        )?;
        check(
            matches!(store.entity_key_serialization, 2 | 3),
            "store.entity_key_serialization",
            store.entity_key_serialization,
            "2 or 3",
        )?;
        check(
            store.deadline_ms > 0,
            "store.deadline_ms",
            store.deadline_ms,
            "1 or more milliseconds",
        )?;
        let bloom = &store.bloom;
        check(
            ["auto", "server", "plain"].contains(&bloom.mode.as_str()),
            "store.bloom.mode",
            quoted(&bloom.mode),
            "\"auto\", \"server\" or \"plain\"",
        )?;
        check(
            (1..=10_000_000).contains(&bloom.capacity),
            "store.bloom.capacity",
            bloom.capacity,
            "1 to 10000000",
        )?;
        check(
            (0.000_001..=0.5).contains(&bloom.error_rate),
            "store.bloom.error_rate",
            bloom.error_rate,
            "0.000001 to 0.5",
        )?;
        if let Some(name) = &store.popularity_category {
            check(
                int32(&self.user, name),
                "store.popularity_category",
                quoted(name),
                format!("{CATEGORY} of [user]"),
            )?;
        }
        let categories = &store.trending_categories;
        check(
            categories.len() <= 2,
            "store.trending_categories",
            format!("{categories:?}"),
            "at most two columns",
        )?;
        for name in categories {
            check(
                int32(&self.item, name),
                "store.trending_categories",
                quoted(name),
                format!("{CATEGORY} of [item]"),
            )?;
        }
        Ok(())
    }

    fn validate_serving(&self) -> Result<(), Error> {
        let serving = &self.serving;
        check(
            serving.instance_count > 0,
            "serving.instance_count",
            serving.instance_count,
            "1 or more",
        )?;
        check(
            serving.onnxruntime_threads > 0,
            "serving.onnxruntime_threads",
            serving.onnxruntime_threads,
            "1 or more",
        )?;
        check(
            serving.max_users > 0,
            "serving.max_users",
            serving.max_users,
            "1 or more",
        )?;
        for (model, count) in &serving.instances {
            let key = format!("serving.instances.{model}");
            check(
                Step::of_model(model).is_some(),
                &*key,
                count,
                format!(
                    "one of the models {}",
                    Step::ALL
                        .iter()
                        .map(|step| step.model())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            )?;
            check(*count > 0, &*key, count, "1 or more")?;
        }
        Ok(())
    }
}

const UNIQUE: &str = "a name that no other feature or embedding has: it is the name of a tensor";

fn entity(group: &str, entity: &Entity) -> Result<(), Error> {
    check(
        !entity.id.is_empty(),
        format!("{group}.id"),
        "\"\"",
        "the name of the id column",
    )?;
    unique(group, &entity.columns, &entity.id)?;
    if let Some(title) = &entity.title {
        let text = entity
            .column(title)
            .is_some_and(|column| column.kind == ColumnType::Text);
        check(
            text,
            format!("{group}.title"),
            quoted(title),
            format!("the name of a text column of [{group}]"),
        )?;
    }
    for column in &entity.columns {
        column_of(&format!("{group}.columns.{}", column.name), column)?;
    }
    Ok(())
}

/// Checks a column of `[user]` or `[item]`; `key` is its dotted path.
fn column_of(key: &str, column: &Column) -> Result<(), Error> {
    if column.codes.is_some() {
        check(
            column.kind == ColumnType::Int32,
            format!("{key}.codes"),
            "set",
            "int32 columns only",
        )?;
    }
    if let Some(labels) = &column.labels {
        let alone =
            column.kind == ColumnType::Int32 && column.codes.is_none() && column.derive.is_none();
        check(
            alone,
            format!("{key}.labels"),
            quoted(labels),
            "int32 columns of numbers from 0, without codes and derive",
        )?;
    }
    if column.derive.is_some() {
        derived(key, column)?;
    }
    if let Some(view) = &column.view {
        check(
            column.kind != ColumnType::Text && !view.is_empty(),
            format!("{key}.view"),
            quoted(view),
            "the name of a feature view, of int32 and float32 columns",
        )?;
    }
    default_of(key, column)?;
    match &column.default {
        Fallback::Word(word) => mean_of(key, column, word),
        Fallback::Number(_) => Ok(()),
    }
}

fn derived(key: &str, column: &Column) -> Result<(), Error> {
    check(
        column.kind != ColumnType::Text,
        format!("{key}.type"),
        "text",
        "int32 or float32 with derive",
    )?;
    let alone = column.codes.is_none() && column.source.is_none();
    check(
        alone,
        format!("{key}.derive"),
        "a table",
        "either derive, or source and codes",
    )
}

/// A default that is a word: the mean of the column's numbers.
fn mean_of(key: &str, column: &Column, word: &str) -> Result<(), Error> {
    check(
        word == "mean",
        format!("{key}.default"),
        quoted(word),
        "a number or \"mean\"",
    )?;
    check(
        column.codes.is_none(),
        format!("{key}.default"),
        quoted(word),
        "a number: codes have no mean",
    )
}

/// Checks that the column's type can hold a default that is a number.
fn default_of(key: &str, column: &Column) -> Result<(), Error> {
    let Fallback::Number(number) = column.default else {
        return Ok(());
    };
    let (fits, accepted) = match column.kind {
        ColumnType::Int32 => {
            let within = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
            (
                within && number.fract() == 0.0,
                "an integer of 32 bits, or type = \"float32\"",
            )
        }
        _ => ((number as f32).is_finite(), "a finite number of 32 bits"),
    };
    check(fits, format!("{key}.default"), number, accepted)
}

fn feature(key: &str, feature: &Feature, columns: &[&str]) -> Result<(), Error> {
    for name in feature.columns() {
        check(
            columns.contains(&name),
            format!("{key}.columns"),
            quoted(name),
            format!("columns of the same table: {}", columns.join(", ")),
        )?;
    }
    let outputs = feature.chain().output_names().map_err(|error| {
        Error::invalid(
            format!("{key}.operators"),
            operators(feature),
            error.to_string(),
        )
    })?;
    check(
        outputs == [feature.name.as_str()],
        format!("{key}.operators"),
        operators(feature),
        format!(
            "operators that give one column; these give {}",
            outputs.join(", ")
        ),
    )?;
    check(
        feature.embedding_dim != Some(0),
        format!("{key}.embedding_dim"),
        0,
        "1 or more",
    )
}

fn unique(group: &str, columns: &[Column], id: &str) -> Result<(), Error> {
    for (index, column) in columns.iter().enumerate() {
        let twice = column.name == id
            || columns
                .iter()
                .take(index)
                .any(|earlier| earlier.name == column.name);
        let key = format!("{group}.columns.{}", column.name);
        check(
            !column.name.is_empty() && !twice,
            key,
            "given twice",
            "names that differ from each other and from the id",
        )?;
    }
    Ok(())
}

fn ids_and_columns(entity: &Entity) -> Vec<&str> {
    std::iter::once(entity.id.as_str())
        .chain(entity.stored().map(|column| column.name.as_str()))
        .collect()
}

fn int32(entity: &Entity, name: &str) -> bool {
    entity
        .column(name)
        .is_some_and(|column| column.kind == ColumnType::Int32)
}

fn operators(feature: &Feature) -> String {
    let names: Vec<&str> = feature.operators.iter().map(Operator::name).collect();
    format!("[{}]", names.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn check(
    valid: bool,
    key: impl Into<String>,
    value: impl ToString,
    accepted: impl Into<String>,
) -> Result<(), Error> {
    if valid {
        Ok(())
    } else {
        Err(Error::invalid(key, value, accepted))
    }
}
