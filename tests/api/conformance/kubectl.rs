//! `[sig-cli] Kubectl client` and the parts of `CustomResourcePublishOpenAPI` that upstream tests with kubectl: all that
//! is asked of the API and the controllers. There is no node; the tests say of pods that they run.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::{DEFINITIONS, MERGE, control, post, send_as, until};
use crate::kubectl::Kubectl;
use crate::server::{Listening, TestServer};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with controllers, and the first kubectl of the host.
async fn cluster() -> (Listening, Kubectl) {
    let listening = TestServer::listening().await;
    control(&listening.server);
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    until(async || (listening.server.send("GET", account, None).await.0 == 200).then_some(())).await;
    let kubectl = Kubectl::all(&listening).remove(0);
    (listening, kubectl)
}

/// Waits for this many pods with a label and says of them that they run; their names.
async fn started(server: &TestServer, label: &str, wanted: usize) -> Vec<String> {
    let path = format!("{PODS}?labelSelector={label}");
    let names: Vec<String> = until(async || {
        let (_, list) = server.send("GET", &path, None).await;
        let items = list["items"].as_array().unwrap().iter();
        let names: Vec<String> = items
            .filter(|pod| pod["metadata"].get("deletionTimestamp").is_none())
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        (names.len() == wanted).then_some(names)
    })
    .await;
    for (i, name) in names.iter().enumerate() {
        let (_, pod) = server.send("GET", &format!("{PODS}/{name}"), None).await;
        let container = &pod["spec"]["containers"][0];
        let ip = format!("10.42.0.{}", i + 2);
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
            "containerStatuses": [{"name": container["name"], "image": container["image"], "imageID": "x", "ready": true,
                "restartCount": 0, "started": true, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
        let path = format!("{PODS}/{name}/status");
        let (code, _, body) = send_as(server, ("PATCH", &path), MERGE, status.to_string()).await;
        assert_eq!(code, 200, "{body}");
    }
    names
}

/// Deletes pods whose deletion nobody else finishes here.
async fn finish(server: &TestServer) {
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    let (code, body) = server.send("DELETE", PODS, Some(options)).await;
    assert_eq!(code, 200, "{body}");
}

fn controller() -> String {
    json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "agnhost-primary", "labels": {"app": "agnhost", "role": "primary"}},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": "agnhost", "role": "primary"}},
            "spec": {"containers": [{"name": "agnhost-primary", "image": "registry.example/agnhost:2.60",
                "ports": [{"name": "agnhost-server", "containerPort": 6379}]}]}}}})
    .to_string()
}

fn service() -> String {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "agnhost-primary", "labels": {"app": "agnhost", "role": "primary"}},
        "spec": {"ports": [{"port": 6379, "targetPort": "agnhost-server"}], "selector": {"app": "agnhost", "role": "primary"}}})
    .to_string()
}

/// Every line of `wanted` is a line of the text that has its words in their order.
fn tells(text: &str, wanted: &[&str]) {
    for line in wanted {
        let words: Vec<&str> = line.split('|').collect();
        let has = |text: &str| {
            words
                .iter()
                .try_fold(text, |rest, word| rest.find(word).map(|at| &rest[at + word.len()..]))
                .is_some()
        };
        assert!(text.lines().any(has), "{line:?} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_describes_controllers_pods_services_nodes_and_namespaces() {
    let (listening, kubectl) = cluster().await;
    let server = &listening.server;
    kubectl.ok("create -f -", &controller()).await;
    kubectl.ok("create -f -", &service()).await;
    let pods = started(server, "app%3Dagnhost", 1).await;
    let pod = kubectl.ok(&format!("describe pod {}", pods[0]), "").await;
    tells(
        &pod,
        &[
            "Name:|agnhost-primary-",
            "Namespace:|default",
            "Node:",
            "Labels:|app=agnhost",
            "role=primary",
            "Annotations:",
            "Status:|Running",
            "IP:",
            "Controlled By:|ReplicationController/agnhost-primary",
            "Image:|registry.example/agnhost:2.60",
            "State:|Running",
            "QoS Class:|BestEffort",
        ],
    );
    let told = until(async || {
        let told = kubectl.ok("describe rc agnhost-primary", "").await;
        told.contains("1 Running").then_some(told)
    })
    .await;
    tells(
        &told,
        &[
            "Name:|agnhost-primary",
            "Namespace:|default",
            "Selector:|app=agnhost,role=primary",
            "Labels:|app=agnhost",
            "role=primary",
            "Annotations:",
            "Replicas:|1 current|1 desired",
            "Pods Status:|1 Running|0 Waiting|0 Succeeded|0 Failed",
            "Pod Template:",
            "Image:|registry.example/agnhost:2.60",
            "Events:",
        ],
    );
    let told = kubectl.ok("describe service agnhost-primary", "").await;
    tells(
        &told,
        &[
            "Name:|agnhost-primary",
            "Namespace:|default",
            "Labels:|app=agnhost",
            "role=primary",
            "Annotations:",
            "Selector:|app=agnhost,role=primary",
            "Type:|ClusterIP",
            "IP:",
            "Port:|<unset>|6379/TCP",
            "Endpoints:|10.42.0.2:6379",
            "Session Affinity:|None",
        ],
    );
    let status = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}});
    post(server, "/api/v1/nodes", json!({"metadata": {"name": "node"}, "status": status})).await;
    let told = kubectl.ok("describe node node", "").await;
    tells(
        &told,
        &[
            "Name:|node",
            "Labels:",
            "Annotations:",
            "CreationTimestamp:",
            "Conditions:",
            "Addresses:",
            "Capacity:",
            "Kernel Version:",
            "OS Image:",
            "Container Runtime Version:",
            "Kubelet Version:",
            "Kube-Proxy Version:",
        ],
    );
    let told = kubectl.ok("describe namespace default", "").await;
    tells(&told, &["Name:|default", "Labels:", "Annotations:", "Status:|Active"]);
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exposes_labels_and_patches() {
    let (listening, kubectl) = cluster().await;
    let server = &listening.server;
    kubectl.ok("create -f -", &controller()).await;
    let pods = started(server, "app%3Dagnhost", 1).await;
    kubectl.ok("expose rc agnhost-primary --name=rm2 --port=1234 --target-port=6379", "").await;
    kubectl.ok("expose service rm2 --name=rm3 --port=2345 --target-port=6379", "").await;
    for (name, port) in [("rm2", 1234), ("rm3", 2345)] {
        let (_, service) =
            server.send("GET", &format!("/api/v1/namespaces/default/services/{name}"), None).await;
        let ports = service["spec"]["ports"].as_array().unwrap();
        assert_eq!(
            (ports.len(), &ports[0]["port"], &ports[0]["targetPort"]),
            (1, &json!(port), &json!(6379))
        );
        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        );
        until(async || {
            let (_, list) = server.send("GET", &slices, None).await;
            let slice = list["items"].as_array()?.first()?.clone();
            (slice["endpoints"].as_array()?.len() == 1 && slice["ports"][0]["port"] == 6379).then_some(())
        })
        .await;
    }
    let pod = &pods[0];
    kubectl.ok(&format!("label pods {pod} testing-label=testing-label-value"), "").await;
    assert!(kubectl.ok(&format!("get pod {pod} -L testing-label"), "").await.contains("testing-label-value"));
    kubectl.ok(&format!("label pods {pod} testing-label-"), "").await;
    assert!(
        !kubectl.ok(&format!("get pod {pod} -L testing-label"), "").await.contains("testing-label-value")
    );
    kubectl.ok(&format!("patch pod {pod} -p {{\"metadata\":{{\"annotations\":{{\"x\":\"y\"}}}}}}"), "").await;
    let (_, pod) = server.send("GET", &format!("{PODS}/{pod}"), None).await;
    assert_eq!(pod["metadata"]["annotations"]["x"], "y");
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_runs_replaces_and_dry_runs_pods_and_tells_differences() {
    let (listening, kubectl) = cluster().await;
    let server = &listening.server;
    let image = async || {
        let (_, pod) = server.send("GET", &format!("{PODS}/e2e-test-httpd-pod"), None).await;
        pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    };
    kubectl
        .ok("run e2e-test-httpd-pod --restart=Never --pod-running-timeout=2m0s --image=httpd:2.4", "")
        .await;
    assert_eq!(
        (
            image().await,
            kubectl.ok("get pod e2e-test-httpd-pod -o jsonpath={.spec.restartPolicy}", "").await.as_str()
        ),
        ("httpd:2.4".to_owned(), "Never")
    );
    kubectl.ok("delete pods e2e-test-httpd-pod --now", "").await;

    kubectl.ok("run e2e-test-httpd-pod --image=httpd:2.4 --labels=run=e2e-test-httpd-pod", "").await;
    let patch = r#"{"spec":{"containers":[{"name":"e2e-test-httpd-pod","image":"busybox:1.36"}]}}"#;
    let told = kubectl.ok(&format!("patch pod e2e-test-httpd-pod -p {patch} --dry-run=server"), "").await;
    assert!(told.contains("pod/e2e-test-httpd-pod patched"), "{told}");
    assert_eq!(image().await, "httpd:2.4");
    let pod = kubectl.ok("get pod e2e-test-httpd-pod -o json", "").await;
    kubectl.ok("replace -f -", &pod.replace("httpd:2.4", "busybox:1.36")).await;
    assert_eq!(image().await, "busybox:1.36");

    let deployment = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd-deployment", "labels": {"app": "httpd"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "httpd"}}, "template": {"metadata": {"labels": {"app": "httpd"}},
            "spec": {"containers": [{"name": "httpd", "image": "httpd:2.4", "ports": [{"containerPort": 80}]}]}}}}"#;
    kubectl.ok("create -f -", deployment).await;
    let (same, told) = kubectl.run("diff -f -", deployment).await;
    assert!(same, "{told}");
    let changed = deployment.replace("httpd:2.4", "busybox:1.36");
    let (same, told) = kubectl.run("diff -f -", &changed).await;
    assert!(
        !same && told.contains("-      - image: httpd:2.4") && told.contains("+      - image: busybox:1.36"),
        "{told}"
    );
    kubectl.ok("delete --wait=false -f -", deployment).await;
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_scales_a_replication_controller_and_stops_it() {
    let (listening, kubectl) = cluster().await;
    let server = &listening.server;
    let object = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "update-demo-nautilus"},
        "spec": {"replicas": 2, "selector": {"name": "update-demo", "version": "nautilus"}, "template": {
            "metadata": {"labels": {"name": "update-demo", "version": "nautilus"}},
            "spec": {"containers": [{"name": "update-demo", "image": "registry.example/nautilus:1.7",
                "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}})
    .to_string();
    kubectl.ok("create -f -", &object).await;
    let names = [
        "get",
        "pods",
        "-o",
        "template",
        "--template={{range.items}}{{.metadata.name}} {{end}}",
        "-l",
        "name=update-demo",
    ];
    let running = "--template={{if (exists . \"status\" \"containerStatuses\")}}{{range .status.containerStatuses}}\
        {{if (and (eq .name \"update-demo\") (exists . \"state\" \"running\"))}}true{{end}}{{end}}{{end}}";
    for replicas in [2, 1, 2] {
        kubectl.ok(&format!("scale rc update-demo-nautilus --replicas={replicas} --timeout=1m"), "").await;
        until(async || {
            let (ok, told) = kubectl.words(&names, "").await;
            assert!(ok, "{told}");
            (told.split_whitespace().count() == replicas).then_some(())
        })
        .await;
        let pods = started(server, "name%3Dupdate-demo", replicas).await;
        for pod in &pods {
            let (_, told) = kubectl.words(&["get", "pods", pod, "-o", "template", running], "").await;
            assert_eq!(told, "true");
        }
    }
    let told = kubectl.ok("delete --grace-period=0 --force -f -", &object).await;
    assert!(told.contains("replicationcontroller \"update-demo-nautilus\" force deleted"), "{told}");
    until(async || {
        (kubectl.ok("get pods -l name=update-demo --no-headers", "").await.starts_with("No resources found"))
            .then_some(())
    })
    .await;
    let left = kubectl.ok("get rc,svc -l name=update-demo --no-headers", "").await;
    assert!(left.starts_with("No resources found"), "{left}");
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_makes_and_stops_an_application_of_several_tiers() {
    let (listening, kubectl) = cluster().await;
    let server = &listening.server;
    let tier = |name: &str, replicas: usize, labels: Value| {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "server", "image": "agnhost", "resources": {"requests": {"cpu": "100m"}},
                    "ports": [{"containerPort": 6379}]}]}}}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
            "spec": {"ports": [{"port": 6379}], "selector": labels}});
        json!({"apiVersion": "v1", "kind": "List", "items": [service, deployment]}).to_string()
    };
    let tiers = [
        tier("agnhost-replica", 2, json!({"app": "agnhost", "role": "replica", "tier": "backend"})),
        tier("agnhost-primary", 1, json!({"app": "agnhost", "role": "primary", "tier": "backend"})),
        tier("frontend", 3, json!({"app": "guestbook", "tier": "frontend"})),
    ];
    for tier in &tiers {
        kubectl.ok("create -f -", tier).await;
    }
    started(server, "app%3Dguestbook,tier%3Dfrontend", 3).await;
    started(server, "app%3Dagnhost,role%3Dprimary", 1).await;
    until(async || {
        let told = kubectl.ok("get deploy frontend -o jsonpath={.status.availableReplicas}", "").await;
        (told == "3").then_some(())
    })
    .await;
    for tier in &tiers {
        kubectl.ok("delete --grace-period=0 --force -f -", tier).await;
    }
    until(async || {
        finish(server).await;
        let left = kubectl.ok("get deploy,rs,pods,svc -l tier --no-headers", "").await;
        left.starts_with("No resources found").then_some(())
    })
    .await;
    listening.stop().await;
}

/// What a plain HTTP/1.1 request answers.
async fn ask(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    stream.write_all(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_tells_versions_and_proxies() {
    let listening = TestServer::listening().await;
    let kubectl = Kubectl::all(&listening).remove(0);
    assert!(kubectl.ok("api-versions", "").await.lines().any(|line| line == "v1"));
    let versions = kubectl.ok("version", "").await;
    for item in ["Client Version: v1.", "Server Version: v1.36."] {
        assert!(versions.contains(item), "{versions}");
    }
    let told = kubectl.ok("cluster-info", "").await;
    assert!(told.contains("Kubernetes control plane") && told.contains("is running at"), "{told}");

    let mut proxy = kubectl.spawn(&["proxy", "-p", "0", "--disable-filter"]);
    let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let answer = ask(TcpStream::connect(&address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"APIVersions\""), "{answer}");
    proxy.kill().await.unwrap();

    let socket = listening.server.path().join("proxy.sock");
    let mut proxy = kubectl.spawn(&["proxy", &format!("--unix-socket={}", socket.display())]);
    let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap();
    let answer = ask(UnixStream::connect(&socket).await.unwrap()).await;
    assert!(answer.contains("\"APIVersions\""), "{answer}");
    proxy.kill().await.unwrap();
    listening.stop().await;
}

/// Defines a kind and waits until its description is published.
async fn define(listening: &Listening, group: &str, schema: Value) -> String {
    let definition = json!({"metadata": {"name": format!("e2e-tests.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": "e2e-tests", "kind": "E2eTest"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    post(&listening.server, DEFINITIONS, definition).await;
    let name = format!("{}.v1.E2eTest", group.split('.').rev().collect::<Vec<_>>().join("."));
    until(async || {
        let (_, document) = listening.server.send("GET", "/openapi/v2", None).await;
        document["definitions"].get(&name).map(|_| ())
    })
    .await;
    format!("e2e-tests.{group}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_validates_and_explains_custom_resources() {
    let listening = TestServer::listening().await;
    let kubectl = Kubectl::all(&listening).remove(0);
    let bars = json!({"description": "List of Bars and their specs.", "type": "array", "items": {"type": "object",
        "required": ["name"], "properties": {
            "name": {"description": "Name of Bar.", "type": "string"},
            "age": {"description": "Age of Bar.", "type": "string"},
            "feeling": {"description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"]},
            "bazs": {"description": "List of Bazs.", "items": {"type": "string"}, "type": "array"}}}});
    let foo = json!({"description": "Foo CRD for Testing", "type": "object", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": bars}}}});
    let plural = define(&listening, "foo.example.com", foo).await;
    let object = |group: &str, more: &str| {
        format!(r#"{{"kind":"E2eTest","apiVersion":"{group}/v1","metadata":{{"name":"test-cr"}},{more}}}"#)
    };
    let group = "foo.example.com";
    let valid = object(group, r#""spec":{"bars":[{"name":"test-bar"}]}"#);
    let bad = object(group, r#""spec":{"bars":[{"name":"test-bar", "feeling":"NonExistentValue"}]}"#);
    let unknown = object(group, r#""spec":{"foo":true}"#);
    let missing = object(group, r#""spec":{"bars":[{"age":"10"}]}"#);
    for verb in ["create", "apply"] {
        kubectl.ok(&format!("{verb} -f -"), &valid).await;
        kubectl.ok(&format!("delete {plural} test-cr"), "").await;
        for (object, message) in [
            (&bad, r#"Unsupported value: "NonExistentValue""#),
            (&unknown, r#"unknown field "spec.foo""#),
            (&missing, "spec.bars[0].name: Required value"),
        ] {
            let (ok, told) = kubectl.run(&format!("{verb} -f -"), object).await;
            assert!(!ok && told.contains(message), "{verb}: {told}");
        }
    }
    for (path, wanted) in [
        (
            "",
            &[
                "DESCRIPTION:",
                "Foo CRD for Testing",
                "FIELDS:",
                "apiVersion",
                "<string>",
                "APIVersion defines",
                "spec",
                "<Object>",
                "Specification of Foo",
            ][..],
        ),
        (
            ".metadata",
            &[
                "DESCRIPTION:",
                "Standard object's metadata",
                "FIELDS:",
                "creationTimestamp",
                "<string>",
                "CreationTimestamp is a timestamp",
            ],
        ),
        (
            ".spec",
            &[
                "DESCRIPTION:",
                "Specification of Foo",
                "FIELDS:",
                "bars",
                "<[]Object>",
                "List of Bars and their specs",
            ],
        ),
        (
            ".spec.bars",
            &[
                "bars",
                "<[]Object>",
                "DESCRIPTION:",
                "List of Bars and their specs",
                "FIELDS:",
                "bazs",
                "<[]string>",
                "List of Bazs",
                "name",
                "<string>",
                "Name of Bar",
            ],
        ),
    ] {
        // By its resource alone, as upstream names it.
        let told = kubectl.ok(&format!("explain e2e-tests{path}"), "").await;
        let found = wanted
            .iter()
            .try_fold(told.as_str(), |rest, word| rest.find(word).map(|at| &rest[at + word.len()..]));
        assert!(found.is_some(), "{wanted:?}\n{told}");
    }
    let (ok, told) = kubectl.run("explain e2e-tests.spec.bars2", "").await;
    assert!(!ok && told.contains(r#"field "bars2" does not exist"#), "{told}");
    kubectl.ok(&format!("delete crd {plural}"), "").await;

    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let nested = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    for (group, schema, body, wanted) in [
        (
            "empty.example.com",
            open,
            r#""a":{"b":[{"c":"d"}]}"#,
            &["KIND:", "E2eTest", "DESCRIPTION:", "<empty>"][..],
        ),
        (
            "nested.example.com",
            nested,
            r#""spec":{"a":null,"b":[{"c":"d"}]}"#,
            &["DESCRIPTION:", "preserve-unknown-properties in nested field for Testing"],
        ),
    ] {
        let plural = define(&listening, group, schema).await;
        let object = object(group, body);
        for verb in ["create", "apply"] {
            kubectl.ok(&format!("{verb} -f -"), &object).await;
            kubectl.ok(&format!("delete {plural} test-cr"), "").await;
        }
        let told = kubectl.ok("explain e2e-tests", "").await;
        let found = wanted
            .iter()
            .try_fold(told.as_str(), |rest, word| rest.find(word).map(|at| &rest[at + word.len()..]));
        assert!(found.is_some(), "{wanted:?}\n{told}");
        kubectl.ok(&format!("delete crd {plural}"), "").await;
    }
    let deployment = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "my-dep", "unknownMeta": "foo",
        "labels": {"app": "nginx"}}, "spec": {"selector": {"matchLabels": {"app": "nginx"}}, "template": {
            "metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}}}"#;
    let (ok, told) = kubectl.run("create -f -", deployment).await;
    assert!(
        !ok && told.contains(r#"unknown field "metadata.unknownMeta""#) && !told.contains("namespace"),
        "{told}"
    );
    listening.stop().await;
}
