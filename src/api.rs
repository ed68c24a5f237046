//! The object model: metadata, selectors, quantities, `Status` errors, schemas and patches. No I/O, and nothing of ours imported.
