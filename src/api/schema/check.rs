//! Fits a decoded value to its schema: unknown fields are dropped and told, nulls mean "not given", quantities
//! written as numbers become strings, and the first value of a wrong type is told.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::arena::Scalar;
use super::{Kind, Schema};

/// What fitting a value found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The paths of fields that the schema does not know, in order; they were dropped.
    pub unknown: Vec<String>,
    /// The first value of a wrong type, in the words of a decoder.
    pub mismatch: Option<String>,
}

/// One step from a value to a part of it; the way back is walked only when there is something to tell.
enum Step<'a> {
    Root,
    Field(&'a Step<'a>, &'a str),
    Item(&'a Step<'a>, usize),
}

impl Step<'_> {
    fn write(&self, path: &mut String) {
        match self {
            Step::Root => {}
            Step::Field(parent, name) => {
                parent.write(path);
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Item(parent, i) => {
                parent.write(path);
                let _infallible = write!(path, "[{i}]");
            }
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        self.write(&mut path);
        path
    }
}

impl Schema<'_> {
    /// Fits `value` to this schema and reports what did not fit.
    pub fn fit(&self, value: &mut Value) -> Report {
        let mut fitter = Fitter { report: Report::default(), keep_unknown: false };
        fitter.fit(self, value, &Step::Root);
        fitter.report
    }

    /// Brings `value` into the form that this schema gives it, but keeps what the schema does not know.
    pub fn normalize(&self, value: &mut Value) {
        Fitter { report: Report::default(), keep_unknown: true }.fit(self, value, &Step::Root);
    }
}

struct Fitter {
    report: Report,
    keep_unknown: bool,
}

impl Fitter {
    fn fit(&mut self, schema: &Schema<'_>, value: &mut Value, at: &Step<'_>) {
        match (schema.kind(), &mut *value) {
            (Kind::Any, _) | (_, Value::Null) => {}
            (Kind::Struct, Value::Object(map)) => self.fit_struct(schema, map, at),
            (Kind::Map, Value::Object(map)) => {
                for (key, value) in map.iter_mut() {
                    if let Some(below) = schema.field(key) {
                        if value.is_null() && below.kind() == Kind::Scalar(Scalar::String) {
                            *value = Value::String(String::new());
                        }
                        self.fit(&below, value, &Step::Field(at, key));
                    }
                }
            }
            (Kind::List, Value::Array(list)) => {
                if let Some(item) = schema.item() {
                    for (i, value) in list.iter_mut().enumerate() {
                        self.fit(&item, value, &Step::Item(at, i));
                    }
                }
            }
            (Kind::Scalar(Scalar::Quantity), Value::Number(number)) => {
                *value = Value::String(number.to_string());
            }
            (Kind::Scalar(scalar), value) if accepts(scalar, value) => {}
            (_, value) => mismatch(schema, value, at, &mut self.report),
        }
    }

    fn fit_struct(&mut self, schema: &Schema<'_>, map: &mut Map<String, Value>, at: &Step<'_>) {
        map.retain(|name, value| match schema.field(name) {
            Some(below) => {
                if !value.is_null() {
                    self.fit(&below, value, &Step::Field(at, name));
                }
                !value.is_null()
            }
            None if self.keep_unknown => true,
            None => {
                self.report.unknown.push(Step::Field(at, name).path());
                false
            }
        });
    }
}

fn accepts(scalar: Scalar, value: &Value) -> bool {
    match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::Quantity => value.is_string(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Scalar::Int64 => value.is_i64(),
        Scalar::Float => value.is_number(),
        Scalar::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
    }
}

fn mismatch(schema: &Schema<'_>, value: &Value, at: &Step<'_>, report: &mut Report) {
    if report.mismatch.is_some() {
        return;
    }
    let have = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    let want = match schema.kind() {
        Kind::Scalar(Scalar::String | Scalar::Bytes) => "string",
        Kind::Scalar(Scalar::Boolean) => "bool",
        Kind::Scalar(Scalar::Int32) => "int32",
        Kind::Scalar(Scalar::Int64) => "int64",
        Kind::Scalar(Scalar::Float) => "float64",
        Kind::Scalar(Scalar::Time) => "v1.Time",
        Kind::Scalar(Scalar::Quantity) => "resource.Quantity",
        Kind::Scalar(Scalar::IntOrString) => "intstr.IntOrString",
        Kind::List => "list",
        Kind::Struct | Kind::Map | Kind::Any => "object",
    };
    report.mismatch =
        Some(format!("json: cannot unmarshal {have} into Go struct field {} of type {want}", at.path()));
}
