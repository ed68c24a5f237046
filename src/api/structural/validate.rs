//! Validation of values against a schema, in the words of upstream's validator: `spec.x in body must be …`.
//!
//! On an update what did not change is not complained about (ratcheting).

use std::fmt::Write as _;

use serde_json::Value;

use super::{Additional, Structural, Type, formats, go_float, lists};
use crate::api::field::{ErrorKind, FieldError, FieldErrors, Path};
use crate::api::schema::ListType;

/// What is validated.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The schema.
    pub schema: &'a Structural,
    /// The value.
    pub value: &'a Value,
    /// What was there before.
    pub old: Option<&'a Value>,
}

/// Validates a value at `at` (empty for the object itself).
pub fn validate(checked: Checked<'_>, at: &str, errors: &mut FieldErrors) {
    let mut run = Run { path: at.to_owned(), errors };
    run.value(checked.schema, checked.value, checked.old);
    let mut duplicates = FieldErrors::new();
    let root = (!at.is_empty()).then(|| Path::new(at.to_owned()));
    lists::check(checked.schema, checked.value, root.as_ref(), &mut duplicates);
    // Duplicates that were there before are ratcheted with the list they are in.
    if let Some(old) = checked.old {
        let mut before = FieldErrors::new();
        lists::check(checked.schema, old, root.as_ref(), &mut before);
        duplicates.0.retain(|error| !before.0.contains(error));
    }
    errors.extend(duplicates);
}

struct Run<'e> {
    path: String,
    errors: &'e mut FieldErrors,
}

impl Run<'_> {
    fn report(&mut self, kind: ErrorKind, value: Option<Value>, detail: String) {
        let field = if self.path.is_empty() { "<nil>".to_owned() } else { self.path.clone() };
        self.errors.push(FieldError { kind, field, value, detail });
    }

    fn invalid(&mut self, value: &Value, what: std::fmt::Arguments<'_>) {
        let detail = format!("{} in body {what}", self.path);
        self.report(ErrorKind::Invalid, Some(value.clone()), detail);
    }

    fn wrong_type(&mut self, wanted: &str, found: &str) {
        let detail = format!("{} in body must be of type {wanted}: {found:?}", self.path);
        self.report(ErrorKind::TypeInvalid, Some(found.into()), detail);
    }

    fn below(&mut self, step: std::fmt::Arguments<'_>, run: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        let _infallible = self.path.write_fmt(step);
        run(self);
        self.path.truncate(length);
    }

    fn field(&mut self, name: &str, run: impl FnOnce(&mut Self)) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.below(format_args!("{dot}{name}"), run);
    }

    fn value(&mut self, schema: &Structural, value: &Value, old: Option<&Value>) {
        if old == Some(value) || (value.is_null() && schema.nullable) {
            return;
        }
        if !self.type_holds(schema, value) {
            return;
        }
        self.combined(schema, value);
        self.limits(schema, value);
        match value {
            Value::Object(map) => self.object(schema, map, old),
            Value::Array(list) => self.list(schema, list, old),
            _ => {}
        }
    }

    fn type_holds(&mut self, schema: &Structural, value: &Value) -> bool {
        if schema.int_or_string {
            let fits = value.is_string() || value.is_i64() || value.is_u64();
            if !fits {
                self.wrong_type("integer,string", kind_of(value));
            }
            return fits;
        }
        let Some(kind) = schema.kind else { return true };
        let fits = match (kind, value) {
            (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::String, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer, Value::Number(n)) => {
                n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0)
            }
            _ => false,
        };
        if !fits {
            self.wrong_type(kind.as_str(), kind_of(value));
        }
        fits
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combined(&mut self, schema: &Structural, value: &Value) {
        let mut passes = |schema: &Structural| {
            let mut errors = FieldErrors::new();
            let mut run = Run { path: self.path.clone(), errors: &mut errors };
            run.value(schema, value, None);
            errors
        };
        let mut found = Vec::new();
        let quoted = format!("{:?}", self.path);
        if !schema.any_of.is_empty() {
            let tries: Vec<_> = schema.any_of.iter().map(&mut passes).collect();
            if !tries.iter().any(FieldErrors::is_empty) {
                found
                    .push((Some(format!("{quoted} must validate at least one schema (anyOf)")), best(tries)));
            }
        }
        if !schema.one_of.is_empty() {
            let tries: Vec<_> = schema.one_of.iter().map(&mut passes).collect();
            match tries.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => found.push((
                    Some(format!("{quoted} must validate one and only one schema (oneOf). Found none valid")),
                    best(tries),
                )),
                several => found.push((
                    Some(format!(
                        "{quoted} must validate one and only one schema (oneOf). Found {several} valid alternatives"
                    )),
                    FieldErrors::new(),
                )),
            }
        }
        let all: Vec<_> = schema.all_of.iter().map(&mut passes).collect();
        if all.iter().any(|errors| !errors.is_empty()) {
            let valid = all.iter().filter(|errors| errors.is_empty()).count();
            let none = if valid == 0 { ". None validated" } else { "" };
            let errors = all.into_iter().flatten().collect();
            found.push((Some(format!("{quoted} must validate all the schemas (allOf){none}")), errors));
        }
        if schema.not.as_deref().is_some_and(|not| passes(not).is_empty()) {
            found.push((Some(format!("{quoted} must not validate the schema (not)")), FieldErrors::new()));
        }
        for (message, errors) in found {
            if let Some(message) = message {
                self.report(ErrorKind::Invalid, Some("".into()), message);
            }
            self.errors.extend(errors);
        }
    }

    fn limits(&mut self, schema: &Structural, value: &Value) {
        let limits = &schema.limits;
        match value {
            Value::String(text) => self.text(schema, value, text),
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    self.number(schema, value, number);
                }
            }
            Value::Array(list) => {
                let count = size(list.len());
                if limits.min_items.is_some_and(|least| count < least) {
                    let least = limits.min_items.unwrap_or(0);
                    self.invalid(&count.into(), format_args!("should have at least {least} items"));
                }
                if let Some(most) = limits.max_items.filter(|most| count > *most) {
                    self.too_many(count, most);
                }
                if limits.unique_items && list.iter().enumerate().any(|(i, item)| list[..i].contains(item)) {
                    self.invalid(&"".into(), format_args!("shouldn't contain duplicates"));
                }
            }
            Value::Object(map) => {
                let count = size(map.len());
                if let Some(least) = limits.min_properties.filter(|least| count < *least) {
                    self.invalid(&count.into(), format_args!("should have at least {least} properties"));
                }
                if let Some(most) = limits.max_properties.filter(|most| count > *most) {
                    self.too_many(count, most);
                }
            }
            _ => {}
        }
        let allowed = &limits.one_of_values;
        if !allowed.is_empty() && !allowed.contains(value) {
            let names: Vec<String> = allowed
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect();
            let mut error = FieldError::not_supported(&Path::new(self.path.clone()), value, &names);
            if self.path.is_empty() {
                error.field = "<nil>".to_owned();
            }
            self.errors.push(error);
        }
    }

    fn too_many(&mut self, count: i64, most: i64) {
        let items = if most == 1 { "item" } else { "items" };
        self.report(ErrorKind::TooMany, Some(count.into()), format!("must have at most {most} {items}"));
    }

    fn text(&mut self, schema: &Structural, value: &Value, text: &str) {
        let limits = &schema.limits;
        let length = size(text.chars().count());
        if let Some(most) = limits.max_length.filter(|most| length > *most) {
            self.report(ErrorKind::TooLong, None, format!("may not be more than {most} bytes"));
        }
        if let Some(least) = limits.min_length.filter(|least| length < *least) {
            self.invalid(value, format_args!("should be at least {least} chars long"));
        }
        if let Some((pattern, Some(compiled))) = &limits.pattern
            && !compiled.is_match(text)
        {
            self.invalid(value, format_args!("should match '{pattern}'"));
        }
        if !limits.format.is_empty() && !formats::holds(&limits.format, text) {
            let format = &limits.format;
            let detail = format!("{} in body must be of type {format}: {text:?}", self.path);
            self.report(ErrorKind::TypeInvalid, Some(value.clone()), detail);
        }
    }

    fn number(&mut self, schema: &Structural, value: &Value, number: f64) {
        let limits = &schema.limits;
        if let Some(factor) = limits.multiple_of {
            let quotient = number / factor;
            if (quotient - quotient.round()).abs() > 1e-9 {
                self.invalid(value, format_args!("should be a multiple of {}", go_float(factor)));
            }
        }
        match limits.maximum {
            Some((most, true)) if number >= most => {
                self.invalid(value, format_args!("should be less than {}", go_float(most)));
            }
            Some((most, false)) if number > most => {
                self.invalid(value, format_args!("should be less than or equal to {}", go_float(most)));
            }
            _ => {}
        }
        match limits.minimum {
            Some((least, true)) if number <= least => {
                self.invalid(value, format_args!("should be greater than {}", go_float(least)));
            }
            Some((least, false)) if number < least => {
                self.invalid(value, format_args!("should be greater than or equal to {}", go_float(least)));
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Structural, map: &serde_json::Map<String, Value>, old: Option<&Value>) {
        for name in &schema.limits.required {
            if !map.contains_key(name) {
                self.field(name, |run| run.report(ErrorKind::Required, None, String::new()));
            }
        }
        for (name, value) in map {
            let old = old.and_then(|old| old.get(name));
            match (schema.properties.get(name), &schema.additional) {
                (Some(below), _) => self.field(name, |run| run.value(below, value, old)),
                (None, Some(Additional::Schema(below))) => {
                    self.field(name, |run| run.value(below, value, old))
                }
                (None, Some(Additional::Allowed(false))) => {
                    let detail = format!("{}.{name} in body is a forbidden property", self.path);
                    self.report(ErrorKind::Invalid, Some("".into()), detail);
                }
                _ => {}
            }
        }
    }

    fn list(&mut self, schema: &Structural, list: &[Value], old: Option<&Value>) {
        let Some(items) = schema.items.as_deref() else { return };
        for (i, item) in list.iter().enumerate() {
            let old = old.and_then(|old| correlated(schema, old, item));
            self.below(format_args!("[{i}]"), |run| run.value(items, item, old));
        }
    }
}

/// The item of the old list that is the same item: only lists of type map can tell.
pub fn correlated<'a>(schema: &Structural, old: &'a Value, item: &Value) -> Option<&'a Value> {
    if schema.list_type != Some(ListType::Map) {
        return None;
    }
    let keys = lists::keys_of(schema, item);
    old.as_array()?.iter().find(|old| lists::keys_of(schema, old) == keys)
}

/// The attempt that came closest.
fn best(tries: Vec<FieldErrors>) -> FieldErrors {
    tries.into_iter().min_by_key(FieldErrors::len).unwrap_or_default()
}

fn size(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
