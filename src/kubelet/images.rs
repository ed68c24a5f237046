//! Images: pull policies, credentials, back-off, what the image says about its user, the built-in pause image, building
//! archives and importing them without a registry.

pub mod archive;
pub mod backoff;
pub mod credentials;
pub mod gc;
pub mod import;
pub mod pause;
pub mod providers;
pub mod pull;

pub use pull::Images;
