//! Mirrors Endpoints that somebody wrote by hand into EndpointSlices, for Services without a selector.
//!
//! Endpoints of the Endpoints controller, of leader elections and those labelled `skip-mirror` are left alone. Each
//! subset becomes one slice per address family, with at most 1000 addresses.

mod plan;
mod run;

pub use run::run;
