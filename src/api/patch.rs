//! Patches: JSON patch, merge patch, strategic merge patch and server-side apply, all on `serde_json::Value`.
//!
//! A patch that cannot be understood is a 400, one that does not fit the object is a 422, as upstream.

mod json;
mod merge;
mod strategic;

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

#[cfg(test)]
pub(in crate::api) use strategic::test_values;
