//! Indexes of every family, built by factory, against exact search in plain Rust.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use saker_index::{Error, Index, Metric, NO_NEIGHBOUR};

const DIMENSION: usize = 16;

/// Uniform numbers in [-1, 1) from a fixed seed (xorshift64*), so that every run sees the same vectors.
fn vectors(rows: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.max(1);
    let mut next = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..rows * DIMENSION).map(|_| next()).collect()
}

/// Ids that are neither dense nor sorted, as raw item ids are.
fn raw_ids(rows: usize) -> Vec<i64> {
    (0..rows as i64).map(|row| 7_919 * row % 100_003).collect()
}

/// The ids of the `k` best rows by exact search.
fn exact(metric: Metric, vectors: &[f32], ids: &[i64], query: &[f32], k: usize) -> Vec<i64> {
    let mut scored: Vec<(f32, i64)> = vectors
        .chunks(DIMENSION)
        .zip(ids)
        .map(|(vector, id)| {
            let pairs = vector.iter().zip(query);
            let score = match metric {
                Metric::InnerProduct => pairs.map(|(a, b)| a * b).sum::<f32>(),
                _ => -pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>(),
            };
            (score, *id)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.iter().take(k).map(|(_, id)| *id).collect()
}

/// On one thread: tests run side by side, and OpenMP's threads would wait for each other in busy loops.
fn build(
    factory: &str,
    dimension: usize,
    metric: Metric,
    vectors: &[f32],
    ids: &[i64],
) -> Result<Index, Error> {
    Index::build_with_threads(NonZeroUsize::MIN, factory, dimension, metric, vectors, ids)
}

fn search(index: &Index, queries: &[f32], k: usize) -> (Vec<f32>, Vec<i64>) {
    let rows = queries.len() / index.dimension();
    let (mut scores, mut ids) = (vec![0.0; rows * k], vec![0; rows * k]);
    index.search(queries, k, &mut scores, &mut ids).unwrap();
    (scores, ids)
}

fn recall(index: &Index, metric: Metric, vectors: &[f32], ids: &[i64], k: usize) -> f64 {
    let queries = self::vectors(20, 99);
    let (_, found) = search(index, &queries, k);
    let hits: usize = queries
        .chunks(DIMENSION)
        .zip(found.chunks(k))
        .map(|(query, found)| {
            let best: BTreeSet<i64> = exact(metric, vectors, ids, query, k).into_iter().collect();
            found.iter().filter(|id| best.contains(id)).count()
        })
        .sum();
    hits as f64 / (20 * k) as f64
}

#[test]
fn flat_search_is_exact_and_honours_the_metric() {
    let (rows, k) = (500, 25);
    let (vectors, ids) = (vectors(rows, 1), raw_ids(rows));
    for metric in [Metric::InnerProduct, Metric::L2] {
        let index = build("Flat", DIMENSION, metric, &vectors, &ids).unwrap();
        assert_eq!(
            (index.len(), index.dimension(), index.metric()),
            (rows, DIMENSION, metric)
        );
        let queries = self::vectors(3, 2);
        let (scores, found) = search(&index, &queries, k);
        for (row, query) in queries.chunks(DIMENSION).enumerate() {
            let expected = exact(metric, &vectors, &ids, query, k);
            assert_eq!(&found[row * k..(row + 1) * k], expected, "{metric}");
            let nearer = |pair: &[f32]| match metric {
                Metric::InnerProduct => pair[0] >= pair[1],
                _ => pair[0] <= pair[1],
            };
            assert!(scores[row * k..(row + 1) * k].windows(2).all(nearer));
        }
    }
}

#[test]
fn every_family_keeps_the_callers_ids_and_finds_neighbours() {
    let rows = 2_000;
    let (vectors, ids) = (vectors(rows, 3), raw_ids(rows));
    let known: BTreeSet<i64> = ids.iter().copied().collect();
    // factory, search parameters, the least recall@10 we accept of it
    for (factory, parameters, least) in [
        ("Flat", "", 1.0),
        ("IVF16,Flat", "nprobe=16", 0.999),
        ("HNSW32", "efSearch=128", 0.95),
        ("HNSW32,Flat", "efSearch=128", 0.95),
        ("PQ8np", "", 0.3),
        ("IVF16,PQ8np", "nprobe=16", 0.3),
        ("IVF16,SQ8", "nprobe=16", 0.9),
        ("IVF16,PQ8x4fs,RFlat", "nprobe=16,k_factor_rf=20", 0.5),
        ("OPQ8,IVF16,PQ8np", "nprobe=16", 0.3),
        ("PCA8,Flat", "", 0.1),
        ("IDMap,Flat", "", 1.0),
        ("IVF16_HNSW8,Flat", "nprobe=16", 0.99),
    ] {
        let mut index = build(factory, DIMENSION, Metric::InnerProduct, &vectors, &ids)
            .unwrap_or_else(|error| panic!("{factory}: {error}"));
        index
            .set_search_parameters(parameters)
            .unwrap_or_else(|error| panic!("{factory}: {error}"));
        assert_eq!(index.len(), rows, "{factory}");
        let (_, found) = search(&index, &self::vectors(4, 5), 10);
        assert!(found.iter().all(|id| known.contains(id)), "{factory}");
        let recall = recall(&index, Metric::InnerProduct, &vectors, &ids, 10);
        assert!(recall >= least, "{factory}: recall@10 is {recall}");
    }
}

#[test]
fn search_parameters_change_what_is_found() {
    let rows = 2_000;
    let (vectors, ids) = (vectors(rows, 3), raw_ids(rows));
    let mut index = build(
        "IVF64,Flat",
        DIMENSION,
        Metric::InnerProduct,
        &vectors,
        &ids,
    )
    .unwrap();
    index.set_search_parameters("nprobe=1").unwrap();
    let few = recall(&index, Metric::InnerProduct, &vectors, &ids, 10);
    index.set_search_parameters("nprobe=64").unwrap();
    let all = recall(&index, Metric::InnerProduct, &vectors, &ids, 10);
    assert!(
        few < 0.8 && all > 0.999,
        "recall {few} with one list, {all} with all"
    );
}

#[test]
fn a_batch_finds_what_its_queries_find_alone() {
    let rows = 1_000;
    let (vectors, ids) = (vectors(rows, 3), raw_ids(rows));
    for factory in ["Flat", "IVF16,Flat", "HNSW16"] {
        let mut index = build(factory, DIMENSION, Metric::InnerProduct, &vectors, &ids).unwrap();
        // 20 queries and more go through BLAS in a flat index, so both sides of that are here
        for batch in [2, 19, 20, 64] {
            let queries = self::vectors(batch, 8);
            let (_, together) = search(&index, &queries, 7);
            let alone: Vec<i64> = queries
                .chunks(DIMENSION)
                .flat_map(|query| search(&index, query, 7).1)
                .collect();
            assert_eq!(together, alone, "{factory}, {batch} queries");
        }
        let queries = self::vectors(20, 8);
        let one = search(&index, &queries, 7).1;
        index.set_threads(NonZeroUsize::new(2).unwrap());
        assert_eq!(search(&index, &queries, 7).1, one, "{factory}, two threads");
    }
}

#[test]
fn several_threads_search_one_index() {
    let (vectors, ids) = (vectors(1_000, 3), raw_ids(1_000));
    let index = build(
        "IVF16,Flat",
        DIMENSION,
        Metric::InnerProduct,
        &vectors,
        &ids,
    )
    .unwrap();
    let queries = self::vectors(8, 4);
    let expected = search(&index, &queries, 5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(search(&index, &queries, 5), expected);
                }
            });
        }
    });
}

#[test]
fn missing_neighbours_are_marked() {
    let (vectors, ids) = (vectors(3, 1), vec![5, 6, 7]);
    let index = build("Flat", DIMENSION, Metric::InnerProduct, &vectors, &ids).unwrap();
    let (_, found) = search(&index, &self::vectors(2, 9), 5);
    for row in found.chunks(5) {
        assert!(row[..3].iter().all(|id| ids.contains(id)));
        assert_eq!(row[3..], [NO_NEIGHBOUR; 2]);
    }
}

#[test]
fn nothing_asked_nothing_found() {
    let index = build("Flat", DIMENSION, Metric::L2, &vectors(3, 1), &[1, 2, 3]).unwrap();
    index.search(&[], 10, &mut [], &mut []).unwrap();
    index.search(&vectors(2, 1), 0, &mut [], &mut []).unwrap();
    let empty = build("Flat", DIMENSION, Metric::L2, &[], &[]).unwrap();
    assert!(empty.is_empty());
    assert_eq!(search(&empty, &vectors(1, 1), 2).1, [NO_NEIGHBOUR; 2]);
}

#[test]
fn written_and_read_again_it_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (vectors, ids) = (vectors(1_000, 3), raw_ids(1_000));
    let queries = self::vectors(5, 6);
    for factory in ["Flat", "IVF16,Flat", "HNSW16", "IVF16,PQ8np"] {
        let index = build(factory, DIMENSION, Metric::L2, &vectors, &ids).unwrap();
        let path = folder.path().join("index.faiss");
        index.write(&path).unwrap();
        let read = Index::read(&path).unwrap();
        assert_eq!(
            (read.len(), read.dimension(), read.metric()),
            (1_000, DIMENSION, Metric::L2)
        );
        assert_eq!(
            search(&read, &queries, 9),
            search(&index, &queries, 9),
            "{factory}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no .partial file stays behind");
}

#[test]
fn the_same_vectors_give_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (vectors, ids) = (vectors(1_000, 3), raw_ids(1_000));
    let bytes = |name: &str| {
        let path = folder.path().join(name);
        build(
            "IVF16,PQ8np",
            DIMENSION,
            Metric::InnerProduct,
            &vectors,
            &ids,
        )
        .unwrap()
        .write(&path)
        .unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(bytes("a"), bytes("b"));
}

#[test]
fn damaged_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.faiss");
    assert!(matches!(Index::read(&path), Err(Error::Open { .. })));
    assert!(Index::read(folder.path()).is_err(), "a folder is no index");

    let index = build(
        "IVF4,Flat",
        DIMENSION,
        Metric::L2,
        &vectors(200, 1),
        &raw_ids(200),
    )
    .unwrap();
    index.write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 4, 20, 37, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Index::read(&path).unwrap_err();
        assert!(
            matches!(error, Error::Read { .. }),
            "{length} bytes: {error}"
        );
        assert!(error.to_string().contains("index.faiss"), "{error}");
    }
    std::fs::write(&path, b"this is a text, not an index").unwrap();
    assert!(matches!(Index::read(&path), Err(Error::Read { .. })));
    assert!(
        index
            .write(&folder.path().join("no/such/folder/x"))
            .is_err()
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (vectors, ids) = (vectors(100, 1), raw_ids(100));
    let refused = |factory: &str, vectors: &[f32], ids: &[i64]| {
        build(factory, DIMENSION, Metric::L2, vectors, ids).unwrap_err()
    };
    assert!(matches!(
        refused("Nonsense", &vectors, &ids),
        Error::Factory { .. }
    ));
    assert!(matches!(
        refused("Fl\0at", &vectors, &ids),
        Error::Factory { .. }
    ));
    assert!(matches!(
        refused("Flat", &vectors[1..], &ids),
        Error::Length { .. }
    ));
    assert!(matches!(
        refused("IVF500,Flat", &vectors, &ids),
        Error::Train { .. }
    ));
    assert!(matches!(
        refused("PQ8", &vectors, &ids),
        Error::Train { .. }
    ));
    let mut odd = vectors.clone();
    odd[DIMENSION * 2] = f32::NAN;
    let error = refused("Flat", &odd, &ids);
    assert!(matches!(error, Error::NotFinite { row: 2, .. }), "{error}");
    let mut negative = ids.clone();
    negative[4] = -1;
    assert!(matches!(
        refused("Flat", &vectors, &negative),
        Error::NegativeId { row: 4, .. }
    ));
    assert!(build("Flat", 0, Metric::L2, &[], &[]).is_err());

    let mut index = build("IVF4,Flat", DIMENSION, Metric::L2, &vectors, &ids).unwrap();
    for (parameters, says) in [
        ("efSearch=3", "does not have it"),
        ("nprobe=0", "nprobe"),
        ("nprobe", "has no '='"),
    ] {
        let message = index
            .set_search_parameters(parameters)
            .unwrap_err()
            .to_string();
        assert!(message.contains(says), "{parameters}: {message}");
    }
    let (mut scores, mut found) = ([0.0; 5], [0; 5]);
    let query = &vectors[..DIMENSION];
    assert!(
        index
            .search(&query[1..], 5, &mut scores, &mut found)
            .is_err()
    );
    assert!(
        index
            .search(query, 5, &mut scores[1..], &mut found)
            .is_err()
    );
    assert!(
        index
            .search(query, 5, &mut scores, &mut found[1..])
            .is_err()
    );
    assert!(
        index
            .search(query, usize::MAX, &mut scores, &mut found)
            .is_err()
    );
}

#[test]
fn the_reference_index_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/reference");
    let mut index = Index::read(&golden.join("index.faiss")).unwrap();
    assert_eq!(index.dimension(), 64);
    assert_eq!(index.metric(), Metric::InnerProduct);
    // every list probed with as many neighbours as there are vectors gives the set of ids
    index.set_search_parameters("nprobe=1000000").unwrap();
    let (_, ids) = search(&index, &[0.5; 64], index.len());
    let ids: BTreeSet<i64> = ids.into_iter().collect();
    assert_eq!(ids.len(), index.len());
    for answer in answers(&golden.join("answers.json")) {
        for id in answer["candidate_ids"].as_array().unwrap() {
            assert!(ids.contains(&id.as_i64().unwrap()), "{id}");
        }
    }
}

fn answers(path: &PathBuf) -> Vec<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
