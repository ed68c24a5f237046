//! What stands behind the names after an object's name.

pub(super) mod binding;
pub(super) mod eviction;
pub(super) mod parts;
pub(super) mod scale;
pub(super) mod token;
