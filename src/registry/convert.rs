//! Conversion between two served forms of one stored kind.

use serde_json::Value;

use crate::api::error::ApiError;

/// How a row that shares another row's storage reads and writes it.
pub trait Conversion: Send + Sync {
    /// From the row's own form to the stored form.
    fn to_stored(&self, own: Value) -> Value;
    /// From the stored form to the row's own form.
    fn restored(&self, stored: Value) -> Value;
}

/// How the versions of a custom resource read and write what they share.
#[async_trait::async_trait]
pub trait Convert: Send + Sync {
    /// From the stored form, whatever version that has, to the row's own.
    async fn restored(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError>;
    /// From the row's own form to the stored one.
    async fn to_stored(&self, own: Value) -> Result<Value, ApiError>;
    /// Whether a conversion may give an object other fields.
    fn changes_fields(&self) -> bool;
}
