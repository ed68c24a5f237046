//! What definitions are told.

use serde_json::{Value, json};

use super::validate;
use crate::api::field::FieldErrors;

fn definition() -> Value {
    json!({
        "metadata": {"name": "widgets.demo.io"},
        "spec": {
            "group": "demo.io", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn told(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut definition = definition();
    change(&mut definition);
    let mut errors = FieldErrors::new();
    validate::new(&definition, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn definitions_are_checked_in_upstreams_words() {
    assert!(told(|_| {}).is_empty());
    type Case = (fn(&mut Value), &'static str);
    let cases: [Case; 9] = [
        (
            |d| d["metadata"]["name"] = "x.demo.io".into(),
            "metadata.name: Invalid value: \"x.demo.io\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            |d| d["spec"]["scope"] = "Galaxy".into(),
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            |d| d["spec"]["names"]["listKind"] = "Widget".into(),
            "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
        ),
        (
            |d| d["spec"]["versions"][0]["schema"] = json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            |d| {
                d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
                    json!({"type": "object", "properties": {"a": {}}})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for \
             specified object fields",
        ),
        (
            |d| {
                d["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "A", "type": "x", "jsonPath": ".a"}])
            },
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of \
             boolean,date,integer,number,string",
        ),
        (
            |d| {
                d["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".x.replicas", "statusReplicasPath": ".status.replicas"}});
            },
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".x.replicas\": should be a json \
             path under .spec",
        ),
        (
            |d| d["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            |d| {
                d["spec"]["group"] = "demo.k8s.io".into();
                d["metadata"]["name"] = "widgets.demo.k8s.io".into();
            },
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
             annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
    ];
    for (change, expected) in cases {
        let found = told(change);
        assert!(found.iter().any(|message| message == expected), "{found:#?}\n{expected}");
    }
    let two = told(|d| {
        let mut other = d["spec"]["versions"][0].clone();
        other["name"] = "v2".into();
        d["spec"]["versions"].as_array_mut().unwrap().push(other);
    });
    assert!(two[0].ends_with("must have exactly one version marked as storage version"), "{two:?}");
}

#[test]
fn what_objects_are_stored_by_stays() {
    let old = {
        let mut old = definition();
        old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        old
    };
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["versions"][0]["name"] = "v2".into();
    let mut errors = FieldErrors::new();
    validate::changed(&new, &old, &mut errors);
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(found[0], "spec.scope: Invalid value: \"Cluster\": field is immutable");
    assert!(
        found[1].starts_with(
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was"
        )
    );
}
