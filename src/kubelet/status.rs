//! Pod status: derived by one function from what is true, published by one manager when it changed.

pub mod conditions;
pub mod container;
pub mod derive;
pub mod patch;
pub mod phase;
#[cfg(test)]
mod tests;
