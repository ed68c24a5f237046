//! Conversion between two served forms of one stored kind.

use serde_json::Value;

/// How a row that shares another row's storage reads and writes it.
pub trait Conversion: Send + Sync {
    /// From the row's own form to the stored form.
    fn to_stored(&self, own: Value) -> Value;
    /// From the stored form to the row's own form.
    fn restored(&self, stored: Value) -> Value;
}
