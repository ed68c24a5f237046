//! YAML in and out, as the JSON values that the API works with.
//!
//! Reading follows what Kubernetes' clients expect of YAML 1.1: `yes` and `off` are booleans, `0644` is octal,
//! merge keys work. Aliases are expanded under a budget, so that a small document cannot become a huge one.

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options, alias_limits, budget, options};

use super::json::{Collect, DecodeError, Decoded, MAX_DEPTH, TOO_DEEP};

/// The most events that aliases may add to a document.
const MAX_REPLAYED: usize = 50_000;

fn reader_options(duplicates: DuplicateKeyPolicy) -> Options {
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            max_aliases: 1_000,
            max_documents: 2,
            max_total_scalar_bytes: 16 * 1024 * 1024,
        },
        alias_limits: alias_limits! { max_total_replayed_events: MAX_REPLAYED, max_replay_stack_depth: 16 },
        duplicate_keys: duplicates,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// Decodes one YAML document.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::Yaml(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut duplicates = Vec::new();
    let value = serde_saphyr::with_deserializer_from_str_with_options(
        text,
        reader_options(DuplicateKeyPolicy::LastWins),
        |deserializer| Collect { duplicates: &mut duplicates, depth: MAX_DEPTH }.deserialize(deserializer),
    );
    match value {
        Ok(value) => Ok(Decoded { value, duplicates }),
        Err(error) => {
            let text = error.to_string();
            let deep = text.contains(TOO_DEEP) || text.to_lowercase().contains("depth");
            Err(if deep { DecodeError::Depth } else { DecodeError::Yaml(text) })
        }
    }
}

/// The first key that a mapping has twice: its line, and its name.
pub fn duplicate_key(bytes: &[u8]) -> Option<(u64, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let outcome = serde_saphyr::with_deserializer_from_str_with_options(
        text,
        reader_options(DuplicateKeyPolicy::Error),
        |deserializer| Collect { duplicates: &mut Vec::new(), depth: MAX_DEPTH }.deserialize(deserializer),
    );
    let line = outcome.err()?.location()?.line();
    let place = usize::try_from(line).ok()?.checked_sub(1)?;
    let key = text.lines().nth(place)?.trim_start_matches([' ', '-']).split(':').next()?.trim();
    Some((line, key.trim_matches(['"', '\'']).to_owned()))
}

/// Encodes a value as one YAML document.
pub fn encode(value: &Value) -> Result<String, DecodeError> {
    serde_saphyr::to_string(value).map_err(|error| DecodeError::Yaml(error.to_string()))
}

#[cfg(test)]
mod tests;
