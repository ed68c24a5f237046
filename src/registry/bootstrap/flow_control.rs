//! The levels and schemas that every cluster has, with upstream's numbers.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::{Value, json};

use super::BootstrapError;
use super::apply::Applier;

/// Name, shares, percentage that others may use, and the queues: how many, dealt to a flow, and the length of each.
type LevelRow = (&'static str, i32, i32, Option<(i32, i32, i32)>);

const LEVELS: [LevelRow; 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec})
}

fn level((name, shares, lendable, queues): LevelRow) -> Value {
    let response = match queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand, length)) => json!({"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
    };
    let limited =
        json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    object(name, json!({"type": "Limited", "limited": limited}))
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account = |name: &&str| json!({"namespace": "kube-system", "name": name});
    names.iter().map(|name| json!({"kind": "ServiceAccount", "serviceAccount": account(name)})).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], namespaces: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    if !namespaces.is_empty() {
        rule["namespaces"] = json!(namespaces);
    }
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Rules that cover everything the subjects do.
fn all(subjects: Vec<Value>) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

fn schema(name: &str, level: &str, precedence: i32, by: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object(name, spec)
}

fn schemas() -> Vec<Value> {
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let everybody = ["system:unauthenticated", "system:authenticated"];
    let mut leaders = users(&[manager, scheduler]);
    leaders.extend(accounts(&["*"]));
    let mut endpoint_makers = users(&[manager]);
    endpoint_makers.extend(accounts(&["endpoint-controller", "endpointslicemirroring-controller"]));
    let hold = ["get", "create", "update"];
    let lease = resources(&hold, "coordination.k8s.io", &["leases"], &["*"], false);
    let node_rules = json!([{
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], &["*"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], &["*"], false),
        ],
    }]);
    vec![
        schema(
            "probes",
            "exempt",
            2,
            "",
            json!([{
                "subjects": groups(&everybody),
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
            }]),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            json!([{"subjects": leaders, "resourceRules": [lease]}]),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            json!([{
                "subjects": endpoint_makers,
                "resourceRules": [resources(&hold, "", &["endpoints"], &["*"], false)],
            }]),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            json!([{"subjects": accounts(&["*"]), "resourceRules": [lease]}]),
        ),
        schema("system-node-high", "node-high", 400, "ByUser", node_rules),
        schema("system-nodes", "system", 500, "ByUser", all(groups(&["system:nodes"]))),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", all(users(&[manager]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(users(&[scheduler]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all(accounts(&["*"]))),
        schema("service-accounts", "workload-low", 9000, "ByUser", all(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", all(groups(&everybody))),
    ]
}

/// Makes what is missing, and brings the mandatory objects back to what they must say.
pub(super) async fn reconcile(apply: &Applier<'_>) -> Result<(), BootstrapError> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    apply.create_missing::<PriorityLevelConfiguration>(object("exempt", exempt)).await?;
    for row in LEVELS {
        if row.0 == "catch-all" {
            apply.make_equal::<PriorityLevelConfiguration>(level(row), "/spec").await?;
        } else {
            apply.create_missing::<PriorityLevelConfiguration>(level(row)).await?;
        }
    }
    let everybody = groups(&["system:unauthenticated", "system:authenticated"]);
    let mandatory = [
        schema("exempt", "exempt", 1, "", all(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, "ByUser", all(everybody)),
    ];
    for object in mandatory {
        apply.make_equal::<FlowSchema>(object, "/spec").await?;
    }
    for object in schemas() {
        apply.create_missing::<FlowSchema>(object).await?;
    }
    Ok(())
}
