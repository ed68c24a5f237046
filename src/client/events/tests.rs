//! What the recorder writes.
