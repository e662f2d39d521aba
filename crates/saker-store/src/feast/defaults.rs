//! Defaults of the readers' parameters, as functions for serde.

/// Feast project: `my_feast_repo`.
#[must_use]
pub fn project() -> String {
    "my_feast_repo".into()
}

/// Feature view of the users: `user_features`.
#[must_use]
pub fn user_view() -> String {
    "user_features".into()
}

/// Join key of the users: `user_id`.
#[must_use]
pub fn user_entity() -> String {
    saker_contract::tensor::USER_ID.into()
}

/// Version of the entity key serialization: `3`.
#[must_use]
pub fn entity_key_serialization() -> String {
    "3".into()
}
