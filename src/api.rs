//! The object model: metadata, selectors, quantities, `Status` errors, schemas, patches and
//! protobuf. No I/O, and nothing of ours imported.
//!
//! Everything here is pure: bytes and values go in, values and [`error::ApiError`]s come out.

pub mod cel;
pub mod cron;
pub mod error;
pub mod field;
pub mod json;
pub mod jsonpath;
pub mod managed_fields;
pub mod meta;
pub mod names;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod structural;
pub mod yaml;
