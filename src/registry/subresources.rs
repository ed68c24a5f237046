//! What stands behind the names after an object's name.

pub(super) mod binding;
mod connect;
pub(super) mod eviction;
pub(super) mod parts;
pub(super) mod scale;
pub(super) mod token;
