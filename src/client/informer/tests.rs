//! Informers over hand-made sources.
