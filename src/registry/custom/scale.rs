//! Where a custom resource has its replica counts.

use serde_json::{Map, Value};

/// The paths of the `scale` subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The wanted replicas.
    pub spec: Vec<String>,
    /// The same as it was written.
    pub spec_text: String,
    /// The replicas there are.
    pub status: Vec<String>,
    /// The same as it was written.
    pub status_text: String,
    /// The selector of the pods, as text.
    pub selector: Option<Vec<String>>,
}

/// The steps of a path in dot notation.
pub fn steps(path: &str) -> Vec<String> {
    path.trim_start_matches('.').split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

impl ScalePaths {
    /// The paths of `subresources.scale`.
    pub fn of(scale: &Value) -> Option<Self> {
        let text = |key: &str| scale.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (spec, status) = (text("specReplicasPath")?, text("statusReplicasPath")?);
        Some(Self {
            spec: steps(spec),
            spec_text: spec.to_owned(),
            status: steps(status),
            status_text: status.to_owned(),
            selector: text("labelSelectorPath").map(steps),
        })
    }
}

/// What is at a path.
pub fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| value.get(step))
}

/// Puts `new` at a path, making the objects on the way.
pub fn put(value: &mut Value, path: &[String], new: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut here = value;
    for step in parents {
        let Value::Object(map) = here else { return };
        here = map.entry(step.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(map) = here {
        map.insert(last.clone(), new);
    }
}
