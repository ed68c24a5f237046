//! The EndpointSlice controller: the addresses behind every service that selects pods.
//!
//! At most 100 endpoints a slice, as few writes as possible, one empty slice for a service without endpoints. A pod that is
//! being deleted stays in as terminating until it is gone; a pod that is not ready is in, but not ready, unless the service
//! publishes such addresses.

pub mod hints;
pub mod plan;
pub mod select;
pub mod trigger;
pub mod writes;

mod run;

pub use run::run;
pub(in crate::controllers) use run::{selected, services_of_pod};
pub use writes::Error;

#[cfg(test)]
mod tests;
