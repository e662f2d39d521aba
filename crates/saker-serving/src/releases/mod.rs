//! Several releases side by side in one model repository, one of which serves (docs/releases.md).
//!
//! | module | what it does |
//! |---|---|
//! | [`repository`] | the files: which releases there are, which one the ensemble is pinned to, writing that down |
//! | [`manifest`] | what a release says of itself: hashes, settings, metrics, data window, pipeline definition |
//! | [`record`] | where the manifest's data window and metrics come from |
//! | [`edit`] | changing a config.pbtxt that stands already |
//! | [`install`] | putting a release that comes from elsewhere into a repository |
//! | [`list`] | which releases there are, and how each stands |
//! | [`promote()`] | making another release the visible one, in a running server or for its next start |
//! | [`canary`] | the requests that a release must answer before anyone else sees it |

pub mod canary;
pub mod edit;
pub mod install;
pub mod list;
pub mod manifest;
pub mod promote;
pub mod record;
pub mod repository;

pub use manifest::Manifest;
pub use promote::{Outcome, Stage, promote, try_out, withdraw};
pub use repository::Repository;
