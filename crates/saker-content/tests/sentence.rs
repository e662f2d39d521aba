//! The installed all-MiniLM-L6-v2 against tests/data/make_golden.py, which is another implementation of it.

mod common;

use std::fs;
use std::path::Path;

use common::{golden, installed};
use saker_content::{Cache, Encoder, Error, SentenceEncoder, encode};

fn encoder() -> SentenceEncoder {
    SentenceEncoder::open(&installed("all-MiniLM-L6-v2")).unwrap()
}

fn vectors(encoder: &mut SentenceEncoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let inputs: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| encoder.read(text.as_bytes()).unwrap())
        .collect();
    encoder.encode(&inputs).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn tokens_and_vectors_are_those_of_sentence_transformers() {
    const TOLERANCE: f32 = 1e-5;
    let golden = golden();
    let sentences = golden["sentences"].as_array().unwrap();
    let mut encoder = encoder();
    let texts: Vec<&str> = sentences
        .iter()
        .map(|sentence| sentence["text"].as_str().unwrap())
        .collect();
    let vectors = vectors(&mut encoder, &texts);
    for ((text, vector), expected) in texts.iter().zip(&vectors).zip(sentences) {
        let tokens = encoder.tokens(text).unwrap();
        match expected["tokens"].as_array() {
            Some(ids) => {
                let ids: Vec<u64> = ids.iter().filter_map(serde_json::Value::as_u64).collect();
                let tokens: Vec<u64> = tokens.into_iter().map(u64::from).collect();
                assert_eq!(tokens, ids, "{text}");
            }
            // Of long texts the count alone: 720 words are cut off at the model's 256 tokens.
            None => assert_eq!(
                Some(tokens.len() as u64),
                expected["tokens"].as_u64(),
                "{text}"
            ),
        }
        assert_eq!(vector.len(), 384);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5, "{text}");
        let expected: Vec<f32> = serde_json::from_value(expected["vector"].clone()).unwrap();
        for (found, expected) in vector.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{text}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn what_means_the_same_is_close_and_the_company_does_not_matter() {
    let mut encoder = encoder();
    let texts = [
        "A warm woollen jumper for the winter",
        "Cosy knitted sweater, made for cold days",
        "A stainless steel kitchen knife",
    ];
    let all = vectors(&mut encoder, &texts);
    let (jumper, sweater, knife) = (&all[0], &all[1], &all[2]);
    assert!(cosine(jumper, sweater) > 0.5);
    assert!(cosine(jumper, knife) < 0.2);
    // Alone or among 40 of the same length and 40 of others, to the last bit: the cache relies on it.
    let mut crowd = vec![texts[1]; 40];
    crowd.extend([texts[0]; 40]);
    let crowd = vectors(&mut encoder, &crowd);
    assert!(
        crowd[..40]
            .iter()
            .all(|vector| cosine(vector, sweater) > 1.0 - 1e-6)
    );
    assert!(
        crowd[40..]
            .iter()
            .all(|vector| cosine(vector, jumper) > 1.0 - 1e-6)
    );
}

#[test]
fn a_second_run_encodes_only_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("descriptions.parquet");
    let mut encoder = encoder();
    let mut run = |texts: &[&str]| {
        let load = |item: usize| Ok(texts[item].as_bytes().to_vec());
        encode(
            &mut encoder,
            texts.len(),
            load,
            &mut Cache::open(&path),
            |_, _| {},
        )
        .unwrap()
    };
    let first = run(&["a red dress", "a blue dress", "a red dress"]);
    assert_eq!((first.encoded, first.cached), (2, 0));
    let again = run(&["a red dress", "a blue dress", "a red dress"]);
    assert_eq!((again.encoded, again.cached), (0, 2));
    assert_eq!(again.vectors, first.vectors);
    let changed = run(&["a red dress", "a green dress", "a red dress"]);
    assert_eq!((changed.encoded, changed.cached), (1, 1));
    assert_eq!(changed.vectors[..384], first.vectors[..384]);
    assert_ne!(changed.vectors[384..768], first.vectors[384..768]);
}

/// A copy of the model's folder, its files by link, in which one file is another.
fn changed(file: &str, content: &str) -> (tempfile::TempDir, Result<SentenceEncoder, Error>) {
    let folder = tempfile::tempdir().unwrap();
    let from = installed("all-MiniLM-L6-v2");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modules.json",
    ] {
        std::os::unix::fs::symlink(from.join(name), folder.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(from.join("1_Pooling"), folder.path().join("1_Pooling")).unwrap();
    fs::remove_file(folder.path().join(file)).unwrap();
    fs::write(folder.path().join(file), content).unwrap();
    let opened = SentenceEncoder::open(folder.path());
    (folder, opened)
}

fn message(opened: Result<SentenceEncoder, Error>) -> String {
    opened.err().expect("it was opened").to_string()
}

#[test]
fn what_is_no_such_model_says_what_it_lacks() {
    let missing = message(SentenceEncoder::open(Path::new("/nonexistent")));
    assert!(
        missing.contains("/nonexistent/model.safetensors"),
        "{missing}"
    );

    let config = fs::read_to_string(installed("all-MiniLM-L6-v2").join("config.json")).unwrap();
    for (from, to, expected) in [
        (
            "\"bert\"",
            "\"roberta\"",
            "model_type is \"roberta\"; accepted is \"bert\"",
        ),
        (
            "\"hidden_size\": 384",
            "\"hidden_size\": 768",
            "config.json needs F32",
        ),
        (
            "\"num_hidden_layers\": 6",
            "\"num_hidden_layers\": 7",
            "has no tensor encoder.layer.6",
        ),
        (
            "\"num_attention_heads\": 12",
            "\"num_attention_heads\": 7",
            "does not divide",
        ),
    ] {
        let text = config.replace(from, to);
        assert_ne!(text, config);
        let said = message(changed("config.json", &text).1);
        assert!(said.contains(expected), "{said}");
    }
    let dense =
        r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Dense"}]"#;
    let said = message(changed("modules.json", dense).1);
    assert!(said.contains("Dense is not supported"), "{said}");
    let said = message(changed("model.safetensors", "no weights").1);
    assert!(said.contains("model.safetensors"), "{said}");
    let said = message(changed("tokenizer.json", "{}").1);
    assert!(said.contains("tokenizer.json"), "{said}");
}

#[test]
fn without_a_limit_of_its_own_a_model_takes_as_many_tokens_as_it_has_positions() {
    // `changed` leaves sentence_bert_config.json out.
    let modules = fs::read_to_string(installed("all-MiniLM-L6-v2").join("modules.json")).unwrap();
    let encoder = changed("modules.json", &modules).1.unwrap();
    assert_eq!(encoder.tokens(&"word ".repeat(600)).unwrap().len(), 512);
}
