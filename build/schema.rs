//! Makes the schemas of the built-in kinds: the `schemars` impls of `k8s-openapi`, together with the facts that
//! those do not know (`src/api/schema/facts.txt`), as two compressed JSON files in `OUT_DIR`.
//!
//! `shapes.json.gz` has types and extensions only and is what patches need; `definitions.json.gz` has the
//! descriptions too and is what OpenAPI serves.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

#[path = "roots.rs"]
mod roots;

const LIST_API_VERSION: &str = "The version of the schema of this list.";
const LIST_KIND: &str = "The kind of this list.";
const FACTS: &str = "src/api/schema/facts.txt";

/// Writes both files.
pub fn generate() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FACTS}");
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/definitions".into();
    let mut generator = settings.into_generator();
    let mut definitions = Map::new();
    for list in roots::register(&mut generator) {
        definitions.insert(list.clone(), list_definition(&list));
    }
    for (name, mut definition) in generator.take_definitions(true) {
        tidy(&mut definition);
        definitions.insert(name, definition);
    }
    apply_facts(&mut definitions, &std::fs::read_to_string(FACTS)?)?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    let out = Path::new(&out);
    compress(&out.join("definitions.json.gz"), &definitions)?;
    for definition in definitions.values_mut() {
        strip_descriptions(definition);
    }
    compress(&out.join("shapes.json.gz"), &definitions)
}

fn compress(path: &Path, definitions: &Map<String, Value>) -> Result<(), Box<dyn Error>> {
    let file = std::fs::File::create(path)?;
    let mut encoder = GzBuilder::new().mtime(0).write(file, Compression::best());
    encoder.write_all(&serde_json::to_vec(definitions)?)?;
    encoder.finish()?;
    Ok(())
}

/// The list of a kind, which `k8s-openapi` has as one generic type without a schema.
fn list_definition(list: &str) -> Value {
    let item = list.strip_suffix("List").unwrap_or(list);
    let kind = item.rsplit('.').next().unwrap_or(item);
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": LIST_API_VERSION},
            "kind": {"type": "string", "description": LIST_KIND},
            "metadata": {
                "$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
                "description": "Standard list metadata.",
            },
            "items": {
                "type": "array",
                "items": {"$ref": format!("#/definitions/{item}")},
                "description": format!("The {kind} objects."),
            },
        },
    })
}

/// Removes what JSON Schema has and Kubernetes' documents have not.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (name, below) in map.iter_mut() {
                match (name.as_str(), below) {
                    ("properties", Value::Object(properties)) => properties.values_mut().for_each(tidy),
                    (_, below) => tidy(below),
                }
            }
            map.remove("$schema");
            map.remove("title");
            tidy_kind(map);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn has_type_and_metadata(properties: &Map<String, Value>) -> bool {
    ["apiVersion", "kind", "metadata"].iter().all(|field| properties.contains_key(*field))
}

/// The metadata of a kind may be left out, although the Rust type always has one.
fn tidy_kind(schema: &mut Map<String, Value>) {
    if !schema.get("properties").and_then(Value::as_object).is_some_and(has_type_and_metadata) {
        return;
    }
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|field| field != "metadata");
    if required.is_empty() {
        schema.remove("required");
    }
}

/// Removes `description` from a schema and from the schemas in it, but not a property of that name.
fn strip_descriptions(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("description");
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(strip_descriptions);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(below) {
            strip_descriptions(schema);
        }
    }
}

/// Applies the table of facts; every line must name something that exists.
fn apply_facts(definitions: &mut Map<String, Value>, text: &str) -> Result<(), Box<dyn Error>> {
    let mut prefixes = BTreeMap::new();
    let mut groups = BTreeMap::new();
    let mut definition = String::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("{FACTS}:{}: {line}", number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["prefix", short, package, group_version @ ..] => {
                prefixes.insert((*short).to_owned(), (*package).to_owned());
                if let [group_version] = group_version {
                    groups.insert((*package).to_owned(), (*group_version).to_owned());
                    name_kinds(definitions, package, group_version);
                }
            }
            [name] if !line.starts_with(' ') => {
                let (short, kind) = name.split_once('/').ok_or_else(wrong)?;
                let prefix = prefixes.get(short).ok_or_else(wrong)?;
                definition = format!("{prefix}.{kind}");
                definitions.get(&definition).ok_or_else(wrong)?;
            }
            [field, facts @ ..] => {
                let schema = definitions.get_mut(&definition).ok_or_else(wrong)?;
                if facts == ["kind"] {
                    let (package, kind) = definition.rsplit_once('.').ok_or_else(wrong)?;
                    name_kind(schema, groups.get(package).ok_or_else(wrong)?, kind);
                    continue;
                }
                let target = find(schema, field).ok_or_else(wrong)?;
                for fact in facts {
                    apply_fact(target, fact).ok_or_else(wrong)?;
                }
            }
        }
    }
    Ok(())
}

/// Marks the types of a package that have `apiVersion`, `kind` and `metadata` as kinds.
fn name_kinds(definitions: &mut Map<String, Value>, package: &str, group_version: &str) {
    for (name, schema) in definitions.iter_mut() {
        let Some(kind) = name.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')) else { continue };
        if schema.get("properties").and_then(Value::as_object).is_some_and(has_type_and_metadata) {
            name_kind(schema, group_version, kind);
        }
    }
}

fn name_kind(schema: &mut Value, group_version: &str, kind: &str) {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
}

/// The schema that a fact's first word names: `.` is the type itself, else a field, `field[]` for its items.
fn find<'a>(schema: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    if field == "." {
        return Some(schema);
    }
    let properties = schema.get_mut("properties")?;
    match field.strip_suffix("[]") {
        Some(field) => properties.get_mut(field)?.get_mut("items"),
        None => properties.get_mut(field),
    }
}

fn apply_fact(target: &mut Value, fact: &str) -> Option<()> {
    let target = target.as_object_mut()?;
    let (name, value) = fact.split_once('=').unwrap_or((fact, ""));
    let split = || Value::from(value.split(',').collect::<Vec<_>>());
    match name {
        "list" => target.insert("x-kubernetes-list-type".into(), value.into()),
        "keys" => target.insert("x-kubernetes-list-map-keys".into(), split()),
        "map" => target.insert("x-kubernetes-map-type".into(), value.into()),
        "patch" => target.insert("x-kubernetes-patch-strategy".into(), value.into()),
        "merge-key" => target.insert("x-kubernetes-patch-merge-key".into(), value.into()),
        "default" => target.insert("default".into(), value.into()),
        "format" => target.insert("format".into(), value.into()),
        "type" => target.insert("type".into(), value.into()),
        "required" => target.insert("required".into(), split()),
        "optional" => target.remove("required"),
        "untyped" => {
            let description = target.remove("description");
            target.clear();
            description.and_then(|description| target.insert("description".into(), description))
        }
        "unions" => target.insert("x-kubernetes-unions".into(), serde_json::from_str(value).ok()?),
        _ => return None,
    };
    Some(())
}
