//! From a container of the spec to a CRI request: environment, mounts, security, resources. No I/O.

pub mod config;
pub mod env;
pub mod env_file;
pub mod expand;
pub mod field_ref;
pub mod hosts;
pub mod mounts;
pub mod qos;
pub mod resolver;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod service_env;
pub mod user_namespace;
