//! The configuration file and its drop-ins: keys are flag names, values are what the flag would be given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ConfigError;

/// The file that is read when `--config` names no other; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/kube-lite/config.yaml";

/// What the files say: flag name to its values, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FileValues {
    values: BTreeMap<String, Vec<String>>,
    origin: BTreeMap<String, PathBuf>,
}

impl FileValues {
    /// Reads `path` and then, in the order of their names, the `*.yaml` files of `path` + `.d`.
    ///
    /// # Errors
    /// A file that cannot be read, is not YAML, or is not a map of flag names. A missing `path` is an error only
    /// when it is `required`.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        let mut merged = FileValues::default();
        for file in with_drop_ins(path, required)? {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| ConfigError::Read { path: file.clone(), source })?;
            merged.add(&file, &text)?;
        }
        Ok(merged)
    }

    fn add(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let wrong = |why: String| ConfigError::File { path: file.to_owned(), why };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(());
        }
        let document: Value = serde_saphyr::from_str(text).map_err(|error| {
            wrong(error.to_string().lines().next().unwrap_or("it is not YAML").to_owned())
        })?;
        let Value::Object(entries) = document else {
            return Err(wrong("it must be a map of flag names, such as `node-name: worker-1`".to_owned()));
        };
        for (key, value) in entries {
            let (key, append) = match key.strip_suffix('+') {
                Some(key) => (key, true),
                None => (key.as_str(), false),
            };
            let given = scalars(&value).ok_or_else(|| {
                wrong(format!("{key}: a value is text, a number, true, false, or a list of these"))
            })?;
            let known = self.values.entry(key.to_owned()).or_default();
            if !append {
                known.clear();
            }
            known.extend(given);
            self.origin.insert(key.to_owned(), file.to_owned());
        }
        Ok(())
    }

    /// Flag names and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.values.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// The file that set the key last.
    pub fn origin(&self, key: &str) -> &Path {
        self.origin.get(key).map_or(Path::new(DEFAULT_FILE), PathBuf::as_path)
    }
}

fn with_drop_ins(path: &Path, required: bool) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    let exists = path.try_exists().map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if exists || required {
        files.push(path.to_owned());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".d");
    let directory = PathBuf::from(name);
    let mut extra = match std::fs::read_dir(&directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ConfigError::Read { path: directory.clone(), source })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(ConfigError::Read { path: directory, source }),
    };
    extra.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    extra.sort();
    files.extend(extra);
    Ok(files)
}

fn scalars(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => {
            items.iter().map(|item| scalars(item).filter(|one| one.len() == 1)?.pop()).collect()
        }
        Value::String(text) => Some(vec![text.clone()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Bool(flag) => Some(vec![flag.to_string()]),
        Value::Null | Value::Object(_) => None,
    }
}
