//! Leader election against a small model of the API.
