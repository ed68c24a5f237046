//! The status of a CustomResourceDefinition: which of its names are accepted, and its conditions.
//!
//! Pure: from the definitions that there are to the status that one of them should have.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::field::Path;
use crate::api::structural::check;

/// A condition as it should be: type, status, reason and message.
type Condition = (&'static str, &'static str, &'static str, String);

/// The annotation that says who approved an API in a protected group.
pub const APPROVED: &str = "api-approved.kubernetes.io";

/// The text at `path`.
fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The condition of a type.
pub fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = definition.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| text(condition, "/type") == kind)
}

/// Whether the condition of a type is true.
pub fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|condition| text(condition, "/status") == "True")
}

/// The status that `definition` should have, given all definitions.
pub fn status(definition: &Value, all: &[Value], now: &str) -> Value {
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    let (names, accepted) = accepted_names(definition, all);
    status["acceptedNames"] = names;
    let conflict = accepted.1 != "True";
    set_condition(&mut status, accepted, now);
    let established = match (is_true(definition, "Established"), conflict) {
        (true, _) => None,
        (false, true) => {
            Some(("Established", "False", "NotAccepted", "not all names are accepted".to_owned()))
        }
        (false, false) => Some((
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted".to_owned(),
        )),
    };
    if let Some(condition) = established {
        set_condition(&mut status, condition, now);
    }
    match structural(definition) {
        Some(condition) => set_condition(&mut status, condition, now),
        None => remove_condition(&mut status, "NonStructuralSchema"),
    }
    match approval(definition) {
        Some(condition) => set_condition(&mut status, condition, now),
        None => remove_condition(&mut status, "KubernetesAPIApprovalPolicyConformant"),
    }
    status
}

/// Sets a condition; the time moves only when its status does.
pub fn set_condition(status: &mut Value, condition: Condition, now: &str) {
    let (kind, value, reason, message) = condition;
    let Value::Object(map) = status else { return };
    let list = map.entry("conditions").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(list) = list else { return };
    let new = |since: &str| json!({"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since});
    match list.iter_mut().find(|known| text(known, "/type") == kind) {
        Some(known) => {
            let since =
                if text(known, "/status") == value { text(known, "/lastTransitionTime") } else { now };
            *known = new(since);
        }
        None => list.push(new(now)),
    }
}

fn remove_condition(status: &mut Value, kind: &str) {
    if let Some(Value::Array(list)) = status.get_mut("conditions") {
        list.retain(|condition| text(condition, "/type") != kind);
    }
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn accepted_names(definition: &Value, all: &[Value]) -> (Value, Condition) {
    let group = text(definition, "/spec/group");
    let own = definition.pointer("/status/acceptedNames").cloned().unwrap_or_else(|| json!({}));
    let wanted = definition.pointer("/spec/names").cloned().unwrap_or_else(|| json!({}));
    let others = all.iter().filter(|other| {
        text(other, "/spec/group") == group
            && text(other, "/metadata/name") != text(definition, "/metadata/name")
    });
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for names in others.filter_map(|other| other.pointer("/status/acceptedNames")) {
        resources.extend([text(names, "/plural"), text(names, "/singular")]);
        resources.extend(texts(names.get("shortNames")));
        kinds.extend([text(names, "/kind"), text(names, "/listKind")]);
    }
    resources.remove("");
    kinds.remove("");
    let mut names = own.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&'static str, String)> = None;
    for (field, reason, used) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        match clash(field, &wanted, &own, used) {
            Some(message) => conflict = Some((reason, message)),
            None => put(&mut names, field, wanted.get(field)),
        }
    }
    put(&mut names, "categories", wanted.get("categories"));
    let condition = match conflict {
        Some((reason, message)) => ("NamesAccepted", "False", reason, message),
        None => ("NamesAccepted", "True", "NoConflicts", "no conflicts found".to_owned()),
    };
    (Value::Object(names), condition)
}

fn put(names: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => names.insert(field.into(), value.clone()),
        None => names.remove(field),
    };
}

/// What is wrong with a wanted name: another definition has it.
fn clash(field: &str, wanted: &Value, own: &Value, used: &BTreeSet<&str>) -> Option<String> {
    let in_use = |name: &str| format!("{name:?} is already in use");
    if field == "shortNames" {
        let known = texts(own.get(field));
        let taken: Vec<String> = texts(wanted.get(field))
            .into_iter()
            .filter(|name| !known.contains(name) && used.contains(name))
            .map(in_use)
            .collect();
        return match taken.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        };
    }
    let name = wanted.get(field).and_then(Value::as_str).unwrap_or_default();
    let accepted = own.get(field).and_then(Value::as_str).unwrap_or_default();
    (name != accepted && used.contains(name)).then(|| in_use(name))
}

fn structural(definition: &Value) -> Option<Condition> {
    if definition.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
        let message = "spec.preserveUnknownFields: Invalid value: true: must be false".to_owned();
        return Some(("NonStructuralSchema", "True", "Violations", message));
    }
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array)?;
    let mut found = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let Some(schema) = version.pointer("/schema/openAPIV3Schema") else { continue };
        let at = Path::new("spec").child("versions").index(i).child("schema").child("openAPIV3Schema");
        found.extend(check::violations(schema, &at).iter().map(ToString::to_string));
    }
    match found.as_slice() {
        [] => None,
        [one] => Some(("NonStructuralSchema", "True", "Violations", one.clone())),
        several => Some(("NonStructuralSchema", "True", "Violations", format!("[{}]", several.join(", ")))),
    }
}

/// Whether APIs of a group need an approval.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

fn approval(definition: &Value) -> Option<Condition> {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    if !is_protected(text(definition, "/spec/group")) {
        return None;
    }
    let annotation = crate::api::meta::annotation(definition, APPROVED).unwrap_or_default();
    Some(match annotation {
        "" => (
            KIND,
            "False",
            "MissingAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
        url if url.contains("://") => (KIND, "True", "ApprovedAnnotation", format!("approved in {url}")),
        other if other.starts_with("unapproved") => {
            (KIND, "False", "UnapprovedAnnotation", format!("not approved: {other:?}"))
        }
        other => (
            KIND,
            "False",
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111; found {other:?}"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.demo.io")}, "spec": {"group": "demo.io", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            "shortNames": short}}})
    }

    #[test]
    fn the_first_definition_has_the_names() {
        let mut first = definition("widgets", "Widget", &["w"]);
        first["status"] = status(&first, &[first.clone()], "T1");
        assert!(is_true(&first, "NamesAccepted") && is_true(&first, "Established"));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        let second = definition("gadgets", "Widget", &["w", "g"]);
        let all = [first.clone(), second.clone()];
        let found = status(&second, &all, "T2");
        let second = json!({"status": found});
        let names = condition(&second, "NamesAccepted").unwrap();
        assert_eq!((text(names, "/status"), text(names, "/reason")), ("False", "ListKindConflict"));
        assert_eq!(text(names, "/message"), "\"WidgetList\" is already in use");
        assert_eq!(text(condition(&second, "Established").unwrap(), "/reason"), "NotAccepted");
        assert_eq!(second["status"]["acceptedNames"]["plural"], "gadgets");
        assert_eq!(second["status"]["acceptedNames"].get("shortNames"), None);
        // Nothing moves when nothing changes.
        assert_eq!(status(&first, &all, "T3"), first["status"]);
    }

    #[test]
    fn protected_groups_need_an_approval() {
        assert!(is_protected("x.k8s.io") && is_protected("kubernetes.io") && !is_protected("x.myk8s.io"));
        let mut own = definition("widgets", "Widget", &[]);
        own["spec"]["group"] = "x.k8s.io".into();
        own["metadata"]["annotations"] = json!({APPROVED: "https://example.org/1"});
        let own = json!({"status": status(&own, &[], "T")});
        assert!(is_true(&own, "KubernetesAPIApprovalPolicyConformant"));
    }
}
