//! Levels and versions of the Pod Security Standards, and the labels that name them.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::field::{FieldError, FieldErrors, Path};

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much pods may do, from everything to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// A level, as of some minor version of Kubernetes; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub level: Level,
    pub version: Option<u32>,
}

impl LevelVersion {
    const FREE: Self = Self { level: Level::Privileged, version: None };

    /// Whether rules that came with minor version `minor` hold.
    pub fn since(&self, minor: u32) -> bool {
        self.version.is_none_or(|own| own >= minor)
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    /// Reads the labels of a namespace. A level to enforce that cannot be read is the strictest.
    pub fn from_labels(labels: Option<&BTreeMap<String, String>>) -> (Self, FieldErrors) {
        let mut errors = FieldErrors::new();
        let mut mode = |name: &str, fallback: Level| {
            let level_key = format!("{PREFIX}{name}");
            let version_key = format!("{PREFIX}{name}-version");
            let at = |key: &str| Path::new("metadata").child("labels").key(key.to_owned());
            let find = |key: &str| labels.and_then(|labels| labels.get(key));
            let mut found = LevelVersion::FREE;
            if let Some(text) = find(&level_key) {
                found.level = Level::parse(text).unwrap_or_else(|| {
                    let message = "must be one of privileged, baseline, restricted";
                    errors.push(FieldError::invalid(&at(&level_key), text, message));
                    fallback
                });
            }
            if let Some(text) = find(&version_key).filter(|text| *text != "latest") {
                let minor = text.strip_prefix("v1.").and_then(|minor| minor.parse().ok());
                if minor.is_none() {
                    let message = "must be \"latest\" or \"v1.x\"";
                    errors.push(FieldError::invalid(&at(&version_key), text, message));
                }
                found.version = minor;
            }
            found
        };
        let enforce = mode("enforce", Level::Restricted);
        mode("audit", Level::Privileged);
        let mut warn = mode("warn", Level::Privileged);
        let said = |name: &str| labels.is_some_and(|labels| labels.contains_key(&format!("{PREFIX}{name}")));
        // Who enforces and says nothing about warnings is warned about what would be refused.
        if said("enforce") && !said("warn") {
            warn = enforce;
        }
        (Self { enforce, warn }, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let labels = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect();
        let (policy, errors) = Policy::from_labels(Some(&labels));
        (policy, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels_name_levels_and_versions() {
        let (policy, errors) =
            read(&[("enforce", "baseline"), ("enforce-version", "v1.25"), ("warn", "restricted")]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(policy.enforce.to_string(), "baseline:v1.25");
        assert_eq!(policy.warn.to_string(), "restricted:latest");
        assert!(!policy.enforce.since(26) && policy.enforce.since(25));
        let (policy, errors) = read(&[("enforce", "x"), ("warn-version", "1.2")]);
        assert_eq!(policy.enforce.level, Level::Restricted);
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must be one of privileged, \
                 baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \"latest\" \
                 or \"v1.x\"",
            ]
        );
        assert_eq!(Policy::from_labels(None).0.enforce, LevelVersion::FREE);
    }
}
