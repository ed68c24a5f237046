//! `[sig-storage] … updates should be reflected in volume`: one running pod that sees its objects change, go and come.

use serde_json::{Value, json};

use super::{Cluster, Wrong, pod, shell, with};

const KINDS: [(&str, bool); 4] =
    [("configMap", false), ("configMap", true), ("secret", false), ("secret", true)];
const STEPS: [&str; 3] = ["delete", "update", "create"];

fn volume(kind: &str, projected: bool, name: &str) -> Value {
    let field = if kind == "secret" && !projected { "secretName" } else { "name" };
    let source = json!({field: name, "optional": true});
    if projected { json!({"projected": {"sources": [{kind: source}]}}) } else { json!({kind: source}) }
}

fn object(kind: &str, name: &str, value: &str) -> Value {
    let (kind, data) = if kind == "secret" { ("Secret", "stringData") } else { ("ConfigMap", "data") };
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, data: {"data-1": value}})
}

fn name(kind: &str, step: &str) -> String {
    format!("optional-{}-{step}", kind.to_lowercase())
}

fn watcher() -> Value {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for (kind, projected) in KINDS {
        for step in STEPS {
            let own = format!("{}-{projected}-{step}", kind.to_lowercase());
            volumes.push(with(json!({"name": own}), volume(kind, projected, &name(kind, step))));
            mounts.push(json!({"name": own, "mountPath": format!("/v/{own}"), "readOnly": true}));
        }
    }
    let fields = |path: &str| json!({"path": path, "fieldRef": {"fieldPath": format!("metadata.{path}")}});
    let items = json!([fields("labels"), fields("annotations")]);
    volumes.push(json!({"name": "downward", "downwardAPI": {"items": items}}));
    volumes.push(json!({"name": "projected", "projected": {"sources": [{"downwardAPI": {"items": items}}]}}));
    for own in ["downward", "projected"] {
        mounts.push(json!({"name": own, "mountPath": format!("/v/{own}")}));
    }
    let container = with(shell("a", "sleep 10000"), json!({"volumeMounts": mounts}));
    pod("updated", json!({"volumes": volumes, "containers": [container], "terminationGracePeriodSeconds": 0}))
}

/// What all the files of the pod say, one a line.
const READ: &str =
    "cd /v; for f in */data-1 */labels */annotations; do test -e $f && echo $f=$(cat $f); done; true";

pub fn updates_are_reflected_in_volumes(cluster: &Cluster, wrong: &mut Wrong) {
    let mut objects = Vec::new();
    for kind in ["configMap", "secret"] {
        objects.extend(["delete", "update"].map(|step| object(kind, &name(kind, step), "value-1")));
    }
    objects.push(watcher());
    cluster.create(&objects);
    cluster.ready("updated");
    let before = cluster.exec("updated", READ);
    for (kind, projected) in KINDS {
        for (step, there) in [("delete", true), ("update", true), ("create", false)] {
            let line = format!("{}-{projected}-{step}/data-1=value-1", kind.to_lowercase());
            wrong.unless(
                before.contains(&line) == there,
                "optional objects are shown as they are",
                format!("{line}: {before}"),
            );
        }
    }
    let own = |kind: &str| if kind == "secret" { "secret" } else { "configmap" };
    for kind in ["configMap", "secret"] {
        cluster.node.kubectl(&["delete", own(kind), &name(kind, "delete")]);
        let (field, value) = if kind == "secret" { ("data", "dmFsdWUtMw==") } else { ("data", "value-3") };
        let change = json!({field: {"data-1": null, "data-3": value}}).to_string();
        cluster.node.kubectl(&["patch", own(kind), &name(kind, "update"), "--type=merge", "-p", &change]);
        cluster.create(&[object(kind, &name(kind, "create"), "value-1")]);
    }
    let change =
        json!({"metadata": {"labels": {"key3": "value3"}, "annotations": {"builder": "foo"}}}).to_string();
    cluster.node.kubectl(&["patch", "pod", "updated", "--type=merge", "-p", &change]);
    let read = READ.replace("*/data-1", "*/data-1 */data-3");
    let mut expected: Vec<String> = ["downward", "projected"]
        .iter()
        .flat_map(|own| {
            [format!("{own}/annotations=builder=\"foo\""), format!("{own}/labels=key3=\"value3\"")]
        })
        .collect();
    let mut gone = Vec::new();
    for (kind, projected) in KINDS {
        let path = |step: &str, key: &str| format!("{}-{projected}-{step}/{key}=", kind.to_lowercase());
        expected.extend([path("update", "data-3") + "value-3", path("create", "data-1") + "value-1"]);
        gone.extend([path("delete", "data-1"), path("update", "data-1")]);
    }
    let begin = std::time::Instant::now();
    loop {
        let seen = cluster.exec("updated", &read);
        let absent: Vec<_> = expected.iter().filter(|line| !seen.contains(line.as_str())).collect();
        let stale: Vec<_> = gone.iter().filter(|line| seen.contains(line.as_str())).collect();
        if absent.is_empty() && stale.is_empty() {
            break;
        }
        if begin.elapsed() > crate::node::PATIENCE {
            wrong.unless(
                false,
                "updates should be reflected in volume",
                format!("{absent:?} {stale:?} in {seen}"),
            );
            break;
        }
    }
    cluster.node.kubectl(&["delete", "pod", "updated", "--wait=false"]);
}
