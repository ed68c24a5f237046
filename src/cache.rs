//! The watch cache: a persistent ordered map per resource, an event window and the watchers of it.
