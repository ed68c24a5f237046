//! Label and field selectors: upstream's grammar, its error messages, and matching.

mod field;
mod label;
pub mod node;
mod parser;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement, validate_label_selector};

use super::error::ApiError;

/// Why a selector cannot be used, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

impl From<SelectorError> for ApiError {
    fn from(error: SelectorError) -> Self {
        ApiError::bad_request(error.0)
    }
}

#[cfg(test)]
mod tests;
