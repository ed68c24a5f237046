//! The definitions of the built-in kinds as OpenAPI serves them, with descriptions. They are inflated on demand,
//! and nothing is kept.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::value::RawValue;

use super::LoadError;

static DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.json.gz"));

/// Definitions by name, each as JSON text.
pub type Definitions = BTreeMap<String, Box<RawValue>>;

/// All definitions of the built-in kinds, as one JSON object.
pub fn text() -> Result<String, LoadError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DEFINITIONS)
        .read_to_string(&mut text)
        .map_err(|error| LoadError::Decode(serde_json::Error::io(error)))?;
    Ok(text)
}

/// All definitions of the built-in kinds.
pub fn definitions() -> Result<Definitions, LoadError> {
    serde_json::from_str(&text()?).map_err(LoadError::Decode)
}

/// The compressed definitions, which identify them.
pub fn compressed() -> &'static [u8] {
    DEFINITIONS
}
