//! Cases of upstream's `validation_test.go`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn merged(mut base: Value, change: &Value) -> Value {
    crate::api::patch::merge_patch(&mut base, change.clone()).unwrap();
    base
}

fn told<S: Strategy>(strategy: &S, value: Value) -> Vec<String>
where
    S::Object: DeserializeOwned,
{
    let mut object: S::Object = serde_json::from_value(value).unwrap();
    strategy.default(&mut object);
    let mut errors = FieldErrors::new();
    strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn matches() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]})
}

fn mutating() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"reinvocationPolicy": "Never", "matchConstraints": matches(),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}})
}

#[test]
fn mutating_policies_say_when_to_change_what() {
    assert_eq!(
        told(&MutatingPolicy, json!({"metadata": {"name": "p"}})),
        [
            "spec.matchConstraints: Required value",
            "spec.mutations: Required value: mutations must contain at least one item",
            "spec.reinvocationPolicy: Required value",
        ]
    );
    for (change, wanted) in [
        (json!({}), vec![]),
        (
            json!({"failurePolicy": "Other"}),
            vec!["spec.failurePolicy: Unsupported value: \"Other\": supported values: \"Fail\", \"Ignore\""],
        ),
        (
            json!({"reinvocationPolicy": "Often"}),
            vec![
                "spec.reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\"",
            ],
        ),
        (
            json!({"matchConstraints": {"resourceRules": []}}),
            vec!["spec.matchConstraints.resourceRules: Required value"],
        ),
        (
            json!({"matchConstraints": {"matchPolicy": "Other"}}),
            vec![
                "spec.matchConstraints.matchPolicy: Unsupported value: \"Other\": supported values: \"Equivalent\", \"Exact\"",
            ],
        ),
        (
            json!({"mutations": [{"patchType": "Other"}]}),
            vec![
                "spec.mutations[0].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            ],
        ),
        (json!({"mutations": [{"patchType": ""}]}), vec!["spec.mutations[0].patchType: Required value"]),
        (
            json!({"mutations": [{"patchType": "JSONPatch"}]}),
            vec![
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            ],
        ),
        (
            json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": " "}}]}),
            vec!["spec.mutations[0].applyConfiguration.expression: Required value"],
        ),
        (
            json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}, "applyConfiguration": {"expression": "Object{}"}}]}),
            vec![
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            ],
        ),
        (
            json!({"paramKind": {"apiVersion": "a/b/c", "kind": "K"}}),
            vec![
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ],
        ),
        (
            json!({"paramKind": {"apiVersion": "a/", "kind": "K"}}),
            vec!["spec.paramKind.apiVersion: Invalid value: \"a/\": version must be specified"],
        ),
        (
            json!({"paramKind": {}}),
            vec!["spec.paramKind.apiVersion: Required value", "spec.paramKind.kind: Required value"],
        ),
        (
            json!({"variables": [{"name": "in", "expression": "1"}]}),
            vec!["spec.variables[0].name: Invalid value: \"in\": must be a valid CEL identifier"],
        ),
        (
            json!({"variables": [{"name": " ", "expression": ""}]}),
            vec![
                "spec.variables[0].name: Required value: name is not specified",
                "spec.variables[0].expression: Required value: expression is not specified",
            ],
        ),
    ] {
        let value = merged(mutating(), &json!({"spec": change}));
        assert_eq!(told(&MutatingPolicy, value), wanted, "{change}");
    }
    let mut deletes = mutating();
    deletes["spec"]["matchConstraints"]["resourceRules"][0]["operations"] = json!(["DELETE"]);
    let wanted =
        "Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"";
    assert_eq!(
        told(&MutatingPolicy, deletes),
        [format!("spec.matchConstraints.resourceRules.operations: {wanted}")]
    );
}

#[test]
fn mutating_policies_get_defaults() {
    let mut policy: MutatingAdmissionPolicy = serde_json::from_value(mutating()).unwrap();
    MutatingPolicy.default(&mut policy);
    let value = serde_json::to_value(&policy).unwrap();
    assert_eq!(value["spec"]["failurePolicy"], "Fail");
    let found = &value["spec"]["matchConstraints"];
    assert_eq!((&found["matchPolicy"], &found["objectSelector"]), (&json!("Equivalent"), &json!({})));
    assert_eq!(found["resourceRules"][0]["scope"], "*");
}

#[test]
fn bindings_name_a_policy_and_choose_parameters_in_one_way() {
    let base = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p.example.com", "validationActions": ["Deny"]}});
    for (change, wanted) in [
        (json!({}), vec![]),
        (json!({"policyName": ""}), vec!["spec.policyName: Required value"]),
        (
            json!({"paramRef": {"parameterNotFoundAction": "Deny"}}),
            vec!["spec.paramRef: Required value: one of name or selector must be specified"],
        ),
        (json!({"paramRef": {"name": "a"}}), vec!["spec.paramRef.parameterNotFoundAction: Required value"]),
        (
            json!({"paramRef": {"name": "a", "parameterNotFoundAction": "Other"}}),
            vec![
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Other\": supported values: \"Deny\", \"Allow\"",
            ],
        ),
        (
            json!({"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Allow"}}),
            vec![
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            ],
        ),
        (
            json!({"matchResources": {"resourceRules": [{"operations": [], "apiGroups": ["a"], "apiVersions": ["v1"], "resources": ["b"]}]}}),
            vec!["spec.matchResources.resourceRules[0].operations: Required value"],
        ),
    ] {
        let value = merged(base.clone(), &json!({"spec": change}));
        assert_eq!(told(&ValidatingBinding, value.clone()), wanted, "{change}");
        assert_eq!(told(&MutatingBinding, value), wanted, "{change}");
    }
    let actions = |actions: Value| {
        told(&ValidatingBinding, merged(base.clone(), &json!({"spec": {"validationActions": actions}})))
    };
    assert_eq!(
        actions(json!([])),
        ["spec.validationActions: Required value: at least one validation action is required"]
    );
    assert_eq!(actions(json!(["Deny", "Deny"])), ["spec.validationActions[1]: Duplicate value: \"Deny\""]);
}

#[test]
fn validating_policies_check_their_words() {
    let base = json!({"metadata": {"name": "p.example.com"}, "spec": {"matchConstraints": matches(), "validations": [{"expression": "true"}]}});
    for (change, wanted) in [
        (json!({}), vec![]),
        (
            json!({"validations": [{"expression": " "}]}),
            vec!["spec.validations[0].expression: Required value: expression is not specified"],
        ),
        (
            json!({"validations": [{"expression": "true", "message": "a\nb"}]}),
            vec!["spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks"],
        ),
        (
            json!({"validations": [{"expression": "true", "message": " ", "messageExpression": " "}]}),
            vec![
                "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
                "spec.validations[0].message: Invalid value: \" \": must be non-empty if specified",
            ],
        ),
        (
            json!({"validations": [{"expression": "true", "reason": "Other"}]}),
            vec![
                "spec.validations[0].reason: Unsupported value: \"Other\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            ],
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "'a'"}, {"key": "k", "valueExpression": ""}]}),
            vec![
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            ],
        ),
    ] {
        let value = merged(base.clone(), &json!({"spec": change}));
        assert_eq!(told(&ValidatingPolicy, value), wanted, "{change}");
    }
}

#[test]
fn the_status_of_a_policy_has_whole_conditions() {
    let told = |conditions: Value| {
        let value = json!({"metadata": {"name": "p"}, "status": {"conditions": conditions}});
        let (policy, _) = crate::registry::decode::decode_any::<ValidatingAdmissionPolicy>(value).unwrap();
        let mut errors = FieldErrors::new();
        ValidatingPolicy.validate_status_update(&policy, &policy, &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let whole = json!({"type": "A", "status": "False", "reason": "E2E", "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    assert_eq!(told(json!([whole])), Vec::<String>::new());
    assert_eq!(told(json!([whole, whole])), ["status.conditions[1].type: Duplicate value: \"A\""]);
    assert_eq!(
        told(json!([{"type": "A", "status": "Maybe"}])),
        [
            "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value: must be set",
            "status.conditions[0].reason: Required value: must be set",
        ]
    );
    let odd = json!({"type": "A", "status": "True", "reason": "no-dash", "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    assert!(told(json!([odd]))[0].starts_with(
        "status.conditions[0].reason: Invalid value: \"no-dash\": a condition reason must start"
    ));
}
