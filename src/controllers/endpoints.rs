//! The Endpoints controller: the older form of what EndpointSlices say, one object per service that selects pods.

pub mod plan;

mod run;

pub use run::{Error, run};
