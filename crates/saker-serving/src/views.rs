//! Feature views and stores, as a pipeline definition names them.

use anyhow::Result;
use saker_pipeline::{Column, Entity, EntityType, Pipeline};
use saker_store::feast::{self, EntityKeyVersion, FeatureView};

use crate::layout::Layout;

/// Prefix of the names of files that `saker materialize` writes to the offline store.
pub const MATERIALIZED: &str = "materialized";

/// The offline store's address: the definition's, or the pipeline's own folder.
pub fn offline_store(pipeline: &Pipeline, layout: &Layout) -> String {
    let place = pipeline.store.offline.clone();
    place.unwrap_or_else(|| layout.offline().display().to_string())
}

/// A view of users or items in the online store.
pub fn feature_view<'n>(
    pipeline: &Pipeline,
    entity: &Entity,
    view: &str,
    features: impl IntoIterator<Item = &'n str>,
) -> FeatureView {
    let version = match pipeline.store.entity_key_serialization {
        2 => EntityKeyVersion::V2,
        _ => EntityKeyVersion::V3,
    };
    let project = &pipeline.store.feast_project;
    let entity_type = if entity.id == pipeline.user.id {
        pipeline.store.entity_type
    } else {
        pipeline.store.item_entity_type
    };
    let entity_type = match entity_type {
        None | Some(EntityType::Int32) => feast::EntityType::Int32,
        Some(EntityType::Int64) => feast::EntityType::Int64,
        Some(EntityType::String) => feast::EntityType::String,
    };
    FeatureView::new(project, view, &entity.id, version, features).with_entity_type(entity_type)
}

/// The user views of columns that have their own view.
pub fn activity_views(pipeline: &Pipeline) -> Vec<FeatureView> {
    let own = |column: &Column| {
        let view = column.view.as_ref()?;
        Some(feature_view(
            pipeline,
            &pipeline.user,
            view,
            [column.name.as_str()],
        ))
    };
    pipeline.user.stored().filter_map(own).collect()
}

/// The users' features that the first step of the ensemble reads.
///
/// # Errors
/// Returns an error if a view cannot have these columns.
pub fn user_view(pipeline: &Pipeline) -> Result<FeatureView> {
    let columns: Vec<_> = pipeline.user.stored().collect();
    let names = columns.iter().map(|column| column.name.as_str());
    let mut view = feature_view(pipeline, &pipeline.user, &pipeline.store.user_view, names);
    for column in columns {
        if let Some(other) = &column.view {
            view = view.with_feature_elsewhere(&column.name, other)?;
        }
    }
    Ok(view)
}
