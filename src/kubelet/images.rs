//! Images: pull policies, credentials, back-off, and what the image says about its user.

pub mod backoff;
pub mod credentials;
pub mod gc;
pub mod pull;

pub use pull::Images;
