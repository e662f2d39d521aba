//! Several releases side by side in one model repository, one of which serves (docs/releases.md).
//!
//! | module | purpose |
//! |---|---|
//! | [`repository`] | the repository's files: the releases, and the one that the ensemble is pinned to |
//! | [`manifest`] | a release's manifest: hashes, settings, metrics, data window, pipeline definition |
//! | [`record`] | the manifest's data window and metrics |
//! | [`edit`] | changes existing config.pbtxt files |
//! | [`install`] | installs a release of another machine in a repository |
//! | [`list`] | lists the releases and their states |
//! | [`promote()`] | makes another release the visible one, in a running server or for its next start |
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
