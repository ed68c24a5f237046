//! Volumes of pods, below `<root>/pods/<uid>/volumes/<plugin>/<name>`.

pub mod atomic;
pub mod claim;
pub mod csi;
pub mod empty_dir;
pub mod figures;
pub mod fresh;
pub mod host_path;
pub mod image;
pub mod manager;
pub mod ownership;
pub mod payload;
pub mod persistent;
pub mod sub_path;
pub mod token;

pub use manager::{SetUpError, Volumes};
