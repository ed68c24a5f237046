//! What is fuzzed: one function for each reader of bytes that come from outside. `fuzz/` runs them under libFuzzer, the
//! tests below on their seeds and on damaged copies of those.
//!
//! A function returns for any input; beyond that, each asserts what its reader promises.

use std::fmt::{Debug, Display};
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Uri};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::api::cel::{Budget, Env, Program, Scope, Type};
use crate::api::cron::Schedule;
use crate::api::jsonpath::JsonPath;
use crate::api::managed_fields::{self, Set};
use crate::api::patch::{json_patch, merge_patch, strategic_merge_patch};
use crate::api::quantity::Quantity;
use crate::api::schema::{Schema, Schemas};
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::structural::{Structural, check};
use crate::api::{field, json, protobuf, yaml};
use crate::apiserver::request_info::RequestInfo;
use crate::apiserver::streaming::{spdy, websocket};
use crate::cache::{fields, parse};
use crate::registry::decode::decode_any;
use crate::registry::read::continuation::Continuation;
use crate::store::encryption::Keyring;
use crate::store::etcd::bolt;
use crate::store::{Entry, Revision};

/// What is run on an input.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("apply", apply),
    ("cel", cel),
    ("continue_tokens", continue_tokens),
    ("field_paths", field_paths),
    ("json_documents", json_documents),
    ("json_patches", json_patches),
    ("merge_patches", merge_patches),
    ("protobuf_documents", protobuf_documents),
    ("quantities", quantities),
    ("request_lines", request_lines),
    ("schedules", schedules),
    ("schemas", schemas),
    ("sealed_values", sealed_values),
    ("selectors", selectors),
    ("snapshots", snapshots),
    ("spdy_frames", spdy_frames),
    ("stored_values", stored_values),
    ("strategic_patches", strategic_patches),
    ("websocket_frames", websocket_frames),
    ("yaml_documents", yaml_documents),
];

/// Runs the target of that name.
///
/// # Panics
/// There is none, or the target found a fault.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of TARGETS");
    target(data);
}

/// The parts of an input that holds several: they are separated by zero bytes.
fn parts<const N: usize>(data: &[u8]) -> Option<[&[u8]; N]> {
    data.splitn(N, |byte| *byte == 0).collect::<Vec<_>>().try_into().ok()
}

fn document(bytes: &[u8]) -> Option<Value> {
    Some(json::decode(bytes).ok()?.value)
}

fn documents(data: &[u8]) -> Option<(Value, Value)> {
    let [first, second] = parts(data)?;
    Some((document(first)?, document(second)?))
}

fn pod_schema() -> Schema<'static> {
    Schemas::builtin().for_kind("v1", "Pod").expect("the schema of pods is built in")
}

/// Server-side apply of one configuration to a pod, twice: the second time changes nothing.
fn apply(data: &[u8]) {
    let Some((live, applied)) = documents(data) else { return };
    let options = managed_fields::Options {
        manager: "fuzz",
        api_version: "v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        schema: pod_schema(),
        initial: &Value::Null,
        ignored: &[&["status"]],
        force: true,
    };
    let Ok(once) = managed_fields::apply(Some(&live), &applied, &options) else { return };
    let twice = managed_fields::apply(Some(&once), &applied, &options)
        .expect("what was applied can be applied again");
    assert_eq!(twice, once);
}

/// Expressions are compiled and run within their budget.
fn cel(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let env = Env::new().with("object", Type::Dyn);
    if let Ok(program) = Program::compile(source, &env) {
        program.run(&Scope::Empty, &mut Budget::new(10_000)).ok();
    }
}

/// A token that is understood comes back as it was, and leads to no place outside its collection.
fn continue_tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = Continuation::decode(text) else { return };
    assert!(token.after.split('/').all(|part| part != ".."));
    assert_eq!(Continuation::decode(&token.encode()).expect("an encoded token"), token);
    token.is_overdue(1_800_000_000);
}

/// Paths of fields: JSONPath, fieldsV1, and the paths of errors.
fn field_paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = JsonPath::parse(text) {
        path.find(&serde_json::json!({"a": [{"b": 1}, "c"], "d": {"e": null}}));
        path.fields();
    }
    if let Some(set) = document(data).as_ref().and_then(Set::parse) {
        assert_eq!(Set::parse(&set.to_json()).expect("a written set"), set);
        set.paths();
    }
    field::go_quote(text);
}

/// JSON is read into a tree and into a type; what was read can be written and read again.
fn json_documents(data: &[u8]) {
    let Ok(decoded) = json::decode(data) else { return };
    let written = serde_json::to_vec(&decoded.value).expect("a tree");
    assert!(json::decode(&written).expect("a written tree").duplicates.is_empty());
    json::typed::<Pod>(data).ok();
    decode_any::<Pod>(decoded.value).ok();
}

/// RFC 6902.
fn json_patches(data: &[u8]) {
    if let Some((mut live, patch)) = documents(data) {
        json_patch(&mut live, patch).ok();
    }
}

/// RFC 7386: a patch that is applied twice changes nothing the second time.
fn merge_patches(data: &[u8]) {
    let Some((mut live, patch)) = documents(data) else { return };
    if merge_patch(&mut live, patch.clone()).is_ok() {
        let once = live.clone();
        merge_patch(&mut live, patch).expect("a patch that applied once");
        assert_eq!(live, once);
    }
}

/// Protobuf of any kind becomes JSON, and its JSON protobuf again.
fn protobuf_documents(data: &[u8]) {
    protobuf::type_of(data);
    if let Ok(read) = protobuf::decode(data, ("v1", "Pod")) {
        json::decode(&read).expect("JSON made from protobuf");
        protobuf::encode(&read).ok();
    }
}

/// A quantity that is written and read is the same.
fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    assert_eq!(Quantity::parse(&quantity.to_string()).expect("a written quantity"), quantity);
    black_box(quantity.add(&quantity).sub(&quantity).neg().mul(7).round_up(-3));
    black_box((quantity.value(), quantity.milli_value(), quantity.as_f64(), quantity.scaled(3)));
}

/// Paths and queries of requests.
fn request_lines(data: &[u8]) {
    let Some([method, uri]) = parts(data) else { return };
    let Ok(method) = Method::from_bytes(method) else { return };
    let Ok(uri) = Uri::try_from(uri) else { return };
    let info = RequestInfo::new(&method, &uri);
    info.flag("watch");
    info.is_long_running();
}

/// A schedule's next time is later than the time asked for.
fn schedules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schedule) = Schedule::parse(text) else { return };
    let now = Timestamp::from_second(1_772_000_000).expect("a time of this century");
    if let Some(next) = schedule.next(now, &TimeZone::UTC) {
        assert!(next > now);
    }
}

/// Schemas of custom resources are checked, and objects are pruned, filled and validated by them.
fn schemas(data: &[u8]) {
    let Some((schema, mut object)) = documents(data) else { return };
    check::violations(&schema, &field::Path::new("openAPIV3Schema"));
    let schema = Structural::parse(&schema);
    schema.prune(&mut object);
    schema.fill_defaults(&mut object);
}

/// A value that was not sealed with the key is refused, whatever it looks like.
fn sealed_values(data: &[u8]) {
    let ring = Keyring::new(&[("k".to_owned(), vec![7; 32])], vec!["/registry/secrets/".to_owned()]);
    let ring = ring.expect("a key of 32 bytes");
    let key = "/registry/secrets/a/b";
    let sealed = ring.seal(key, Bytes::copy_from_slice(data)).expect("bytes to seal");
    assert_eq!(ring.open(key, sealed).expect("what was sealed"), data);
    if let Ok(opened) = ring.open(key, Bytes::copy_from_slice(data)) {
        assert_eq!(opened, data, "only what is not sealed is given out as it is");
    }
}

/// A selector that is written and read is the same.
fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        assert_eq!(LabelSelector::parse(&selector.to_string()).expect("a written selector"), selector);
        selector.matches(|_| None);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        assert_eq!(FieldSelector::parse(&selector.to_string()).expect("a written selector"), selector);
        selector.matches(|_| Some(""));
    }
}

/// Snapshots of etcd.
fn snapshots(data: &[u8]) {
    let file = Bytes::copy_from_slice(data);
    if bolt::is_bolt(&file) {
        bolt::entries(file).ok();
    }
}

/// Frames of a kubelet's or a runtime's connection are the same however they are cut.
fn spdy_frames(data: &[u8]) {
    same_however_cut(data, || {
        let mut decoder = spdy::Decoder::default();
        move |chunk| {
            decoder.buffer.extend_from_slice(chunk);
            decoded(|| decoder.next())
        }
    });
}

/// Feeds one decoder the data whole and another in small pieces.
fn same_however_cut<D: FnMut(&[u8]) -> (Vec<String>, bool)>(data: &[u8], decoder: impl Fn() -> D) {
    let read = |chunks: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut all) = (decoder(), Vec::new());
        for chunk in chunks {
            let (more, failed) = decoder(chunk);
            all.extend(more);
            if failed {
                break;
            }
        }
        all
    };
    assert_eq!(read(&mut data.chunks(3)), read(&mut std::iter::once(data)));
}

/// What a decoder makes of what it has, and whether it ended with an error, which is the last of it.
fn decoded<T: Debug, E: Display>(mut next: impl FnMut() -> Result<Option<T>, E>) -> (Vec<String>, bool) {
    let mut all = Vec::new();
    loop {
        match next() {
            Ok(Some(one)) => all.push(format!("{one:?}")),
            Ok(None) => return (all, false),
            Err(error) => {
                all.push(error.to_string());
                return (all, true);
            }
        }
    }
}

/// What the store holds under a key becomes an object that is found by its key and carries its revision.
fn stored_values(data: &[u8]) {
    let Some([key, value]) = parts(data) else { return };
    let Ok(key) = std::str::from_utf8(key) else { return };
    let names = Arc::new(fields::FieldSet::new(vec![
        fields::SelectableField::at("spec.nodeName"),
        fields::SelectableField::at("spec.unschedulable").or("false"),
        fields::SelectableField::at("metadata.labels"),
    ]));
    let entry = Entry {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        create_revision: Revision(3),
        mod_revision: Revision(7),
    };
    let Ok(object) = parse::parse(key.into(), &entry.value, entry.mod_revision, &names) else { return };
    assert!(key.starts_with(object.namespace()) && key.ends_with(object.name()));
    // Escapes in what nobody looks at are not read.
    let Ok(_) = serde_json::from_slice::<Value>(value) else { return };
    let read: Value = serde_json::from_slice(object.json()).expect("an object's JSON");
    assert_eq!(read["metadata"]["resourceVersion"], "7");
    black_box((object.uid(), object.labels().count(), object.field("spec.nodeName")));
}

/// Strategic merge patches of pods.
fn strategic_patches(data: &[u8]) {
    if let Some((mut live, patch)) = documents(data) {
        strategic_merge_patch(&mut live, patch, pod_schema()).ok();
    }
}

/// Messages of a client are the same however they are cut.
fn websocket_frames(data: &[u8]) {
    same_however_cut(data, || {
        let mut decoder = websocket::Decoder::default();
        move |chunk| {
            decoder.buffer.extend_from_slice(chunk);
            decoded(|| decoder.next())
        }
    });
}

/// YAML that is read can be written and read again.
fn yaml_documents(data: &[u8]) {
    yaml::duplicate_key(data);
    let Ok(decoded) = yaml::decode(data) else { return };
    let written = yaml::encode(&decoded.value).expect("a tree");
    yaml::decode(written.as_bytes()).expect("a written tree");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Damaged at every place up to here: each is a run of the target.
    const LONGEST: usize = 400;

    #[test]
    fn no_target_fails_on_its_seeds_or_on_damaged_ones() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            assert!(fuzz.join(format!("targets/{name}.rs")).exists(), "fuzz/ has no program for {name}");
            let mut seeds = 0;
            for seed in fs::read_dir(fuzz.join("seeds").join(name)).unwrap() {
                let seed = fs::read(seed.unwrap().path()).unwrap();
                target(&seed);
                for at in 0..seed.len().min(LONGEST) {
                    target(&seed[..at]);
                    for mask in [0x01, 0x20, 0x80] {
                        let mut damaged = seed.clone();
                        damaged[at] ^= mask;
                        target(&damaged);
                    }
                }
                seeds += 1;
            }
            assert!(seeds > 0, "{name} has no seeds");
        }
    }
}
