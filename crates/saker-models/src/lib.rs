//! The models of one pipeline, from the prepared dataset to the verdict on them. The learning itself is in [`saker_train`].
//!
//! | module | what it does |
//! |---|---|
//! | [`train`], [`finetune`] | trains the models; trains existing models on newer interactions |
//! | [`training_session`], [`training_run`] | progress, checkpoints and signals of a training; its record in `models/run/` |
//! | [`export`] | writes models and item vectors |
//! | [`retrieval`] | builds the index of the items' vectors; retrieval as in serving, for evaluations |
//! | [`evaluation`] | measures the models, as they serve, together with the baselines |
//! | [`breakdowns`], [`true_preferences`] | the breakdowns of an evaluation; the best possible answer for a generated shop |
//! | [`verdict`] | decides whether new models may replace a release |

pub mod breakdowns;
pub mod evaluation;
pub mod export;
pub mod finetune;
pub mod retrieval;
pub mod train;
pub mod training_run;
pub mod training_session;
pub mod true_preferences;
pub mod verdict;
