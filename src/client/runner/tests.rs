//! The runner on a paused clock.
