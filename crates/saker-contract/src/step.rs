//! The steps of both ensembles.

use std::fmt;

use crate::artefact::{self, Artefact, Group};

/// Declares each step once: its place in the enum, in [`Step::ALL`] and in every answer about it.
macro_rules! steps {
    ($($(#[$about:meta])* $step:ident {
        model: $model:literal,
        backend: $backend:literal,
        position: $position:expr,
        reads: [$(($artefact:expr, $place:expr)),*],
    })*) => {
        /// A model of an ensemble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$about])* $step,)*
        }

        impl Step {
            /// Every step, in the order of the contract's table. The step of the fused ensemble is the last one.
            pub const ALL: &[Self] = &[$(Self::$step),*];

            /// The model's name.
            #[must_use]
            pub const fn model(self) -> &'static str {
                match self {
                    $(Self::$step => $model,)*
                }
            }

            /// The backend's name. An ONNX model can also run on NVIDIA's backend or on TensorRT.
            #[must_use]
            pub const fn backend(self) -> &'static str {
                match self {
                    $(Self::$step => $backend,)*
                }
            }

            /// The position in the ensemble of 14 steps, such as `1a`; `None` for the step of the fused ensemble.
            #[must_use]
            pub const fn position(self) -> Option<&'static str> {
                match self {
                    $(Self::$step => $position,)*
                }
            }

            /// What the version folder holds: each artefact with its file name, or with the folder for its files. An empty text is the
            /// version folder itself.
            #[must_use]
            pub const fn artefacts(self) -> &'static [(Artefact, &'static str)] {
                match self {
                    $(Self::$step => const { &[$(($artefact, $place)),*] },)*
                }
            }
        }
    };
}

steps! {
    /// Checks the request and fills in what it left out.
    ContextPreprocessor {
        model: "context_preprocessor",
        backend: "request_defaults",
        position: Some("0"),
        reads: [],
    }
    /// Reads the user's features from the store.
    UserLookup {
        model: "feast_user_lookup",
        backend: "feature_lookup",
        position: Some("1a"),
        reads: [(Artefact::Codes(Group::User), artefact::CODES)],
    }
    /// Transforms the user's features.
    UserTransform {
        model: "nvt_user_transform",
        backend: "feature_transform",
        position: Some("1b"),
        reads: [(Artefact::Workflow(Group::User), "")],
    }
    /// Transforms the features of the moment.
    ContextTransform {
        model: "nvt_context_transform",
        backend: "feature_transform",
        position: Some("1c"),
        reads: [(Artefact::Workflow(Group::Context), "")],
    }
    /// Computes the query vector.
    QueryTower {
        model: "query_tower",
        backend: "onnxruntime",
        position: Some("2"),
        reads: [(Artefact::QueryTower, artefact::MODEL)],
    }
    /// Finds the candidates.
    Retrieval {
        model: "faiss_retrieval",
        backend: "faiss_retrieval",
        position: Some("3"),
        reads: [(Artefact::Index, artefact::INDEX)],
    }
    /// Removes seen items, and adds popular ones.
    SeenFilter {
        model: "filter_seen_items",
        backend: "bloom_filter",
        position: Some("4"),
        reads: [(Artefact::Catalogue, artefact::CATALOGUE)],
    }
    /// Reads the candidates' features.
    ItemLookup {
        model: "feast_item_lookup",
        backend: "feature_lookup",
        position: Some("5a"),
        reads: [(Artefact::Codes(Group::Item), artefact::CODES)],
    }
    /// Transforms the candidates' features.
    ItemTransform {
        model: "nvt_item_transform",
        backend: "feature_transform",
        position: Some("5b"),
        reads: [(Artefact::Workflow(Group::Item), "")],
    }
    /// Reads the candidates' embeddings.
    EmbeddingLookup {
        model: "multimodal_embedding_lookup",
        backend: "embedding_lookup",
        position: Some("5c"),
        reads: [(Artefact::Embeddings, "")],
    }
    /// Repeats the features of user and moment for every candidate.
    Unroll {
        model: "unroll_features",
        backend: "unroll",
        position: Some("6a"),
        reads: [],
    }
    /// Scores the candidates.
    Ranking {
        model: "dlrm_ranking",
        backend: "onnxruntime",
        position: Some("6b"),
        reads: [(Artefact::Ranker, artefact::MODEL)],
    }
    /// Chooses the items of the answer.
    Sampling {
        model: "softmax_sampling",
        backend: "softmax_sampling",
        position: Some("6c"),
        reads: [],
    }
    /// Turns codes into raw item ids.
    Decoder {
        model: "item_id_decoder",
        backend: "id_decode",
        position: Some("7"),
        reads: [(Artefact::ItemVocabulary, artefact::CATEGORIES)],
    }
    /// Does the work of all 14 steps, in the fused ensemble.
    Fused {
        model: "fused_recommendation",
        backend: "fused_recommendation",
        position: None,
        reads: [
            (Artefact::QueryTower, artefact::QUERY_TOWER),
            (Artefact::Index, artefact::INDEX),
            (Artefact::HoistedRanker, ""),
            (Artefact::Workflow(Group::User), Group::User.as_str()),
            (Artefact::Workflow(Group::Context), Group::Context.as_str()),
            (Artefact::Codes(Group::User), artefact::CODES),
            (Artefact::Catalogue, artefact::CATALOGUE)
        ],
    }
}

impl Step {
    /// The step with this model; `None` for the name of an ensemble or of another model.
    #[must_use]
    pub fn of_model(model: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.model() == model)
    }

    /// Whether a release may lack the step: without embedding tables, or without the fused ensemble.
    #[must_use]
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::EmbeddingLookup | Self::Fused)
    }

    /// Whether the step loads this artefact.
    #[must_use]
    pub fn reads(self, artefact: Artefact) -> bool {
        self.artefacts().iter().any(|(read, _)| *read == artefact)
    }

    /// The ensemble's name of one of the step's outputs: `<model>/<tensor>`, so that no two steps' tensors share a name.
    #[must_use]
    pub fn output(self, tensor: &str) -> String {
        format!("{}/{tensor}", self.model())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_and_a_place_of_its_own() {
        for step in Step::ALL {
            assert_eq!(Step::of_model(step.model()), Some(*step));
        }
        let positions: Vec<_> = Step::ALL
            .iter()
            .filter_map(|step| step.position())
            .collect();
        assert_eq!(positions.len(), 14);
        assert!(positions.is_sorted());
        assert_eq!(Step::of_model("ensemble_model"), None);
    }
}
