//! Label selectors: requirements, how they are made and what they match.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde_json::Value;

use super::SelectorError;
use super::parser::Parser;
use crate::api::field::{FieldError, FieldErrors, Path, go_quote};
use crate::api::{meta, names};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is in the set.
    In,
    /// There is no value, or it is not in the set.
    NotIn,
    /// The value is the one given (`=`).
    Equals,
    /// The value is the one given (`==`).
    DoubleEquals,
    /// There is no value, or it is another one.
    NotEquals,
    /// There is a value.
    Exists,
    /// There is no value.
    DoesNotExist,
    /// The value is a greater integer.
    GreaterThan,
    /// The value is a smaller integer.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// What to compare with, sorted and without duplicates.
    pub values: Vec<String>,
}

impl Requirement {
    /// Makes a requirement after checking key, number of values and values.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        let invalid = |error: FieldError| SelectorError(error.to_string());
        let path = Path::new("values");
        let key_errors = names::is_qualified_name(key);
        if !key_errors.is_empty() {
            return Err(invalid(FieldError::invalid(&Path::new("key"), key, key_errors.join("; "))));
        }
        values.sort_unstable();
        values.dedup();
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !complaint.is_empty() {
            return Err(invalid(FieldError::invalid(&path, &values, complaint)));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(invalid(FieldError::invalid(&path.index(i), value, detail)));
            }
            let errors = names::is_label_value(value);
            if !errors.is_empty() {
                let path = path.index(i).key(key.to_owned());
                return Err(invalid(FieldError::invalid(&path, value, errors.join("; "))));
            }
        }
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label with this value (or without one) meets the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match (self.operator, value) {
            (Operator::In | Operator::Equals | Operator::DoubleEquals, Some(value)) => listed(value),
            (Operator::NotIn | Operator::NotEquals, Some(value)) => !listed(value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::GreaterThan, Some(value)) => {
                self.compare(value).is_some_and(|(have, want)| have > want)
            }
            (Operator::LessThan, Some(value)) => self.compare(value).is_some_and(|(have, want)| have < want),
            (Operator::NotIn | Operator::NotEquals, None) => true,
            (
                Operator::In
                | Operator::Equals
                | Operator::DoubleEquals
                | Operator::GreaterThan
                | Operator::LessThan,
                None,
            ) => false,
        }
    }

    fn compare(&self, value: &str) -> Option<(i64, i64)> {
        Some((value.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A conjunction of requirements; the default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_requirements(Parser::new(text).requirements()?))
    }

    /// All of `requirements` must be met.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Every label of `labels` must be there with its value, as `spec.selector` of a Service means it.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self { requirements: labels.iter().map(equals).collect(), nothing: false }
    }

    /// The selector of an object's spec: a missing one selects nothing, an empty one everything.
    pub fn from_meta(selector: Option<&meta_v1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let text = format!("{} is not a valid label selector operator", go_quote(other));
                    return Err(SelectorError(text));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether no object can be selected.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels that `get` looks up are selected.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Whether these labels are selected.
    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object's optional labels are selected.
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels?.get(key).map(String::as_str))
    }

    /// Whether this object is selected.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| meta::label(object, key))
    }

    /// The value that `key` must have, if the selector pins it to exactly one.
    pub fn required_value(&self, key: &str) -> Option<&str> {
        let pins = |r: &&Requirement| {
            let exact = matches!(r.operator, Operator::In | Operator::Equals | Operator::DoubleEquals);
            r.key == key && exact && r.values.len() == 1
        };
        self.requirements.iter().find(pins).map(|r| r.values[0].as_str())
    }
}

impl std::str::FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// What is wrong with a selector in an object's spec.
pub fn validate_label_selector(selector: &meta_v1::LabelSelector, path: &Path) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let labels = path.child("matchLabels");
    for (key, value) in selector.match_labels.iter().flatten() {
        errors
            .extend(names::is_qualified_name(key).into_iter().map(|e| FieldError::invalid(&labels, key, e)));
        errors
            .extend(names::is_label_value(value).into_iter().map(|e| FieldError::invalid(&labels, value, e)));
    }
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        validate_expression(expression, &path.child("matchExpressions").index(i), &mut errors);
    }
    errors
}

fn validate_expression(
    expression: &meta_v1::LabelSelectorRequirement,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let values = expression.values.as_deref().unwrap_or_default();
    match expression.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"))
        }
    }
    let key = path.child("key");
    let invalid_key = |e| FieldError::invalid(&key, &expression.key, e);
    errors.extend(names::is_qualified_name(&expression.key).into_iter().map(invalid_key));
    for (i, value) in values.iter().enumerate() {
        let path = path.child("values").index(i);
        errors.extend(names::is_label_value(value).into_iter().map(|e| FieldError::invalid(&path, value, e)));
    }
}
