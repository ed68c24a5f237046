//! Objects made from the schemas: the table knows their every field, and they come back as they went.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::{back, encoded};
use crate::api::protobuf::table::Table;
use crate::api::protobuf::{decode, is_known};
use crate::api::schema::openapi;

type Definitions = BTreeMap<String, Value>;

fn definitions() -> Definitions {
    serde_json::from_str(&openapi::text().unwrap()).unwrap()
}

/// Definitions that are no message of their own but a scalar or a union.
const NO_MESSAGE: [&str; 11] = [
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
    "Quantity",
    "FieldsV1",
    "MicroTime",
    "Patch",
    "RawExtension",
    "Time",
    "IntOrString",
];

#[test]
fn every_field_of_every_schema_has_a_number() {
    let table = Table::builtin();
    let packages: BTreeMap<&str, &str> = table.packages.iter().map(|(short, name)| (*name, *short)).collect();
    let mut missing = Vec::new();
    for (name, definition) in definitions() {
        let (package, kind) = name.rsplit_once('.').unwrap();
        if NO_MESSAGE.contains(&kind) {
            continue;
        }
        let Some(message) = table.named(&format!("{}/{kind}", packages[package])) else {
            missing.push(name);
            continue;
        };
        let known: Vec<&str> = table.message(message).names().collect();
        let is_kind = has_type_meta(&name, &definition);
        for field in definition["properties"].as_object().into_iter().flat_map(Map::keys) {
            let in_envelope = is_kind && matches!(field.as_str(), "apiVersion" | "kind");
            if !in_envelope && !known.contains(&field.as_str()) {
                missing.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(missing.is_empty(), "no number for {missing:#?}");
}

/// Whether a definition's `apiVersion` and `kind` are those of an object, which travel in the envelope.
fn has_type_meta(name: &str, definition: &Value) -> bool {
    definition.get("x-kubernetes-group-version-kind").is_some()
        || ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions"]
            .iter()
            .any(|kind| name.strip_suffix(kind).is_some_and(|package| package.ends_with("meta.v1.")))
}

struct Maker<'a> {
    definitions: &'a Definitions,
    rng: TestRng,
    counter: u32,
}

impl Maker<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }

    fn text(&mut self) -> String {
        self.counter += 1;
        let odd = ["", "\"\\", "ä€😀", "\u{1}\n", "a/b.c"];
        format!("t{}{}", self.counter, odd[self.rng.next_u32() as usize % odd.len()])
    }

    fn number(&mut self, bits: u32) -> i64 {
        let sign = if self.chance(30) { -1 } else { 1 };
        sign * (1 + (self.rng.next_u64() >> (63 - self.rng.next_u32() % (bits - 2))) as i64)
    }

    fn named(&mut self, name: &str, depth: u32) -> Value {
        let kind = name.rsplit('.').next().unwrap_or_default();
        match kind {
            "Quantity" => json!(format!("{}m", self.number(20).abs())),
            "Time" => json!(format!(
                "20{:02}-03-04T05:06:{:02}Z",
                self.rng.next_u32() % 60 + 10,
                self.rng.next_u32() % 60
            )),
            "MicroTime" => json!(format!("2024-03-04T05:06:07.{:06}Z", self.rng.next_u32() % 1_000_000)),
            "IntOrString" if self.chance(50) => json!(self.number(31)),
            "IntOrString" => json!(self.text()),
            "RawExtension" | "FieldsV1" => json!({"f:a": {".": {}, "b": [1, null, self.text()]}}),
            "JSON" => json!([self.text(), null, {"x": 1.5}]),
            "JSONSchemaPropsOrBool" if self.chance(50) => json!(self.chance(50)),
            "JSONSchemaPropsOrArray" if self.chance(50) => {
                json!([self.schema_props(depth), self.schema_props(depth)])
            }
            "JSONSchemaPropsOrStringArray" if self.chance(50) => json!([self.text(), self.text()]),
            "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                self.schema_props(depth)
            }
            _ => {
                let definition = &self.definitions[name];
                let mut value = self.value(definition, depth);
                let in_envelope = has_type_meta(name, definition);
                if let (true, Value::Object(map)) = (in_envelope, &mut value) {
                    map.retain(|field, _| !matches!(field.as_str(), "apiVersion" | "kind"));
                }
                value
            }
        }
    }

    fn schema_props(&mut self, depth: u32) -> Value {
        self.named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", depth)
    }

    fn value(&mut self, schema: &Value, depth: u32) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.named(reference.rsplit('/').next().unwrap_or_default(), depth + 1);
        }
        let format = schema["format"].as_str().unwrap_or_default();
        match (schema["type"].as_str().unwrap_or_default(), format) {
            ("string", "byte") => json!(["AAEC/w==", "YQ==", "YWJj"][self.rng.next_u32() as usize % 3]),
            ("string", _) => json!(self.text()),
            ("boolean", _) => json!(true),
            ("integer", "int32") => json!(self.number(31)),
            ("integer", _) => json!(self.number(62)),
            ("number", _) => json!(self.number(30) as f64 + 0.5),
            ("array", _) => {
                let count = 1 + self.rng.next_u32() % 3;
                (0..count).map(|_| self.value(&schema["items"], depth)).collect()
            }
            ("object", _) => match (&schema["properties"], &schema["additionalProperties"]) {
                (Value::Object(properties), _) => self.object(properties, &schema["required"], depth),
                (_, Value::Object(_)) => (0..2)
                    .map(|_| (self.text(), self.value(&schema["additionalProperties"], depth)))
                    .collect::<Map<_, _>>()
                    .into(),
                _ => json!({}),
            },
            other => panic!("a schema of type {other:?}: {schema}"),
        }
    }

    fn object(&mut self, properties: &Map<String, Value>, required: &Value, depth: u32) -> Value {
        let mut object = Map::new();
        let likely = [100, 90, 60, 40, 25, 12, 6, 3, 1, 0][depth.min(9) as usize];
        for (name, schema) in properties {
            let must = required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
            if must && depth < 30 || self.chance(likely) {
                object.insert(name.clone(), self.value(schema, depth));
            }
        }
        Value::Object(object)
    }
}

/// Whether nothing but zeros is in a value.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_zero),
        Value::Bool(true) => false,
    }
}

fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                match after.get(name) {
                    Some(now) => differences(&format!("{path}.{name}"), value, now, found),
                    None if is_zero(value) => {}
                    None => found.push(format!("{path}.{name} is gone")),
                }
            }
            let added = after.iter().filter(|(name, value)| !before.contains_key(*name) && !is_zero(value));
            found.extend(added.map(|(name, value)| format!("{path}.{name} came: {value}")));
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                differences(&format!("{path}[{i}]"), before, after, found);
            }
        }
        (Value::Number(before), Value::Number(after)) if before.as_f64() == after.as_f64() => {}
        (before, after) if before == after => {}
        (before, after) => found.push(format!("{path}: {before} became {after}")),
    }
}

/// `apiVersion`, `kind` and definition of all kinds.
fn kinds(definitions: &Definitions) -> Vec<(String, String, String)> {
    let mut kinds = Vec::new();
    for (name, definition) in definitions {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let part = |name: &str| kind[name].as_str().unwrap_or_default().to_owned();
            let group = part("group");
            let api_version =
                if group.is_empty() { part("version") } else { format!("{group}/{}", part("version")) };
            kinds.push((api_version, part("kind"), name.clone()));
        }
    }
    kinds
}

#[test]
fn generated_objects_of_every_kind_come_back_equal() {
    let definitions = definitions();
    let kinds = kinds(&definitions);
    assert!(kinds.len() > 120, "only {} kinds", kinds.len());
    for (api_version, kind, name) in &kinds {
        assert!(is_known(api_version, kind), "{api_version} {kind}");
        for seed in 0..4 {
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
            let mut maker = Maker { definitions: &definitions, rng, counter: 0 };
            let mut object = maker.named(name, u32::from(seed));
            object["apiVersion"] = api_version.as_str().into();
            object["kind"] = kind.as_str().into();
            let after = back(&encoded(&object));
            let mut found = Vec::new();
            differences(kind, &object, &after, &mut found);
            assert!(found.is_empty(), "{api_version} {kind}: {found:#?}\n{object}");
        }
    }
}

#[test]
fn broken_bytes_are_errors_and_never_panics() {
    let definitions = definitions();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut maker = Maker { definitions: &definitions, rng, counter: 0 };
    let mut pod = maker.named("io.k8s.api.core.v1.Pod", 2);
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    let bytes = encoded(&pod);
    for end in 0..bytes.len().min(4000) {
        let _outcome = decode(&bytes[..end], ("v1", "Pod"));
    }
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 2000, failure_persistence: None, ..Config::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]),
    );
    let strategy = prop::collection::vec((0..bytes.len(), any::<u8>()), 1..6);
    runner
        .run(&strategy, |changes| {
            let mut broken = bytes.clone();
            for (at, byte) in changes {
                broken[at] = byte;
            }
            if let Ok(json) = decode(&broken, ("v1", "Pod")) {
                prop_assert!(serde_json::from_slice::<Value>(&json).is_ok(), "what is read is JSON");
            }
            Ok(())
        })
        .unwrap();
}
