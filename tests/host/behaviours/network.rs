//! `[sig-network]`: Services of every type, affinity, node and host ports, names, the proxy of the API server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Cluster, Wrong};

const SERVERS: [&str; 3] = ["netserver-0", "netserver-1", "netserver-2"];
const NODE: &str = "10.99.0.2";
/// The cluster's own resolver.
const DNS: &str = "10.43.0.10";

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn port(name: &str, port: u16, target: u16, protocol: &str) -> Value {
    json!({"name": name, "port": port, "targetPort": target, "protocol": protocol})
}

fn labelled(mut pod: Value, app: &str) -> Value {
    pod["metadata"]["labels"]["app"] = app.into();
    pod
}

fn objects(cluster: &Cluster) -> Vec<Value> {
    let mut all: Vec<Value> = SERVERS
        .iter()
        .map(|name| labelled(cluster.agnhost(name, &["netexec", "9376", "9377"]), "affinity"))
        .collect();
    let http = || json!([port("http", 80, 9376, "TCP")]);
    let both = json!([port("tcp", 80, 9376, "TCP"), port("udp", 80, 9377, "UDP")]);
    let multi = json!([port("portname1", 80, 9376, "TCP"), port("portname2", 81, 8080, "TCP")]);
    let app = json!({"app": "affinity"});
    all.extend([
        with_network(cluster.agnhost("host-test-container", &["netexec", "10080", "10081"])),
        cluster.agnhost("execpod", &["pause"]),
        labelled(hosted(cluster.agnhost("dns-querier-2", &["netexec", "8080", "8081"]), "dns-querier-2", "headless"), "named"),
        labelled(cluster.agnhost("second-port", &["netexec", "8080", "8081"]), "second"),
        service("affinity-clusterip", json!({"selector": app, "ports": http(), "sessionAffinity": "ClientIP"})),
        service("affinity-nodeport", json!({"selector": app, "ports": http(), "sessionAffinity": "ClientIP", "type": "NodePort"})),
        service("both-protocols", json!({"selector": app, "ports": both})),
        service("multiport", json!({"selector": {"app": "nobody-yet"}, "ports": multi})),
        service("headless", json!({"selector": {"app": "named"}, "clusterIP": "None", "ports": [port("http", 80, 8080, "TCP")]})),
        service("external", json!({"type": "ExternalName", "externalName": "affinity-clusterip.default.svc.cluster.local"})),
        service("by-hand", json!({"ports": [port("first", 80, 9376, "TCP"), port("second", 81, 8080, "TCP")]})),
    ]);
    all
}

fn with_network(mut pod: Value) -> Value {
    pod["spec"]["hostNetwork"] = true.into();
    pod
}

fn hosted(mut pod: Value, host: &str, subdomain: &str) -> Value {
    pod["spec"]["hostname"] = host.into();
    pod["spec"]["subdomain"] = subdomain.into();
    pod
}

pub fn services_and_names_lead_to_pods(cluster: &Cluster, wrong: &mut Wrong) {
    cluster.create(&objects(cluster));
    for name in SERVERS.into_iter().chain(["host-test-container", "execpod", "dns-querier-2", "second-port"])
    {
        cluster.ready(name);
    }
    pods_reach_each_other(cluster, wrong);
    a_service_has_the_endpoints_of_its_pods(cluster, wrong);
    services_keep_and_lose_their_affinity(cluster, wrong);
    one_port_serves_both_protocols(cluster, wrong);
    services_change_their_types(cluster, wrong);
    slices_by_hand_are_served(cluster, wrong);
    names_are_answered(cluster, wrong);
    host_ports_do_not_conflict(cluster, wrong);
    the_proxy_passes_everything_on(cluster, wrong);
    endpoints_come_quickly(cluster, wrong);
    the_api_server_is_reached_by_its_service(cluster, wrong);
}

fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.get(&format!("pod {pod}"))["status"]["podIP"].as_str().unwrap().to_owned()
}

fn cluster_ip(cluster: &Cluster, service: &str) -> String {
    cluster.get(&format!("service {service}"))["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// Who answers under a URL, asked so many times from the pod for commands; what cannot be reached counts as `-`.
fn answers(cluster: &Cluster, url: &str, times: usize) -> Vec<String> {
    let printed = cluster.ask("execpod", &format!("http://{url}/hostname"), times);
    printed.split_whitespace().map(str::to_owned).collect()
}

/// Asks until every one of the pods has answered, or patience ends.
fn reaches(cluster: &Cluster, url: &str, pods: &[&str]) -> Result<(), String> {
    let begin = std::time::Instant::now();
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(answers(cluster, url, 10));
        if pods.iter().all(|pod| seen.contains(*pod)) {
            return Ok(());
        }
        if begin.elapsed() > crate::node::PATIENCE / 3 {
            return Err(format!("{url}: {seen:?}"));
        }
    }
}

fn must_reach(cluster: &Cluster, wrong: &mut Wrong, behaviour: &str, url: &str, pods: &[&str]) {
    if let Err(seen) = reaches(cluster, url, pods) {
        wrong.unless(false, behaviour, seen);
    }
}

fn pods_reach_each_other(cluster: &Cluster, wrong: &mut Wrong) {
    let from = address(cluster, SERVERS[0]);
    for target in &SERVERS[1..] {
        let ip = address(cluster, target);
        for (protocol, port) in [("http", 9376), ("udp", 9377)] {
            let url = format!(
                "http://{from}:9376/dial?request=hostname&protocol={protocol}&host={ip}&port={port}&tries=1"
            );
            let said = cluster.ask("execpod", &url, 1);
            let wanted = format!("\"responses\": [\"{target}\"]");
            wrong.unless(
                said.contains(&wanted),
                "Networking … intra-pod communication",
                format!("{protocol} {said}"),
            );
            let url = format!(
                "http://{NODE}:10080/dial?request=hostname&protocol={protocol}&host={ip}&port={port}&tries=1"
            );
            let said = cluster.ask("host-test-container", &url, 1);
            wrong.unless(
                said.contains(&wanted),
                "Networking … node-pod communication",
                format!("{protocol} {said}"),
            );
        }
    }
}

/// Ports of a Service's Endpoints by the names of its pods.
fn endpoints(cluster: &Cluster, service: &str, wanted: &[(&str, i64)]) -> bool {
    let wanted: BTreeSet<_> = wanted.iter().map(|(pod, port)| ((*pod).to_owned(), *port)).collect();
    let seen = cluster.until(&format!("endpoints {service}"), |endpoints| {
        let mut pairs = BTreeSet::new();
        for subset in endpoints["subsets"].as_array().into_iter().flatten() {
            for address in subset["addresses"].as_array().into_iter().flatten() {
                for port in subset["ports"].as_array().into_iter().flatten() {
                    let name = address["targetRef"]["name"].as_str().unwrap_or_default().to_owned();
                    pairs.insert((name, port["port"].as_i64().unwrap_or_default()));
                }
            }
        }
        pairs == wanted
    });
    seen.is_ok()
}

fn label(cluster: &Cluster, pod: &str, app: &str) {
    cluster.node.kubectl(&["label", "pod", pod, &format!("app={app}"), "--overwrite"]);
}

fn a_service_has_the_endpoints_of_its_pods(cluster: &Cluster, wrong: &mut Wrong) {
    let (url, other) = (cluster_ip(cluster, "multiport"), format!("{}:81", cluster_ip(cluster, "multiport")));
    wrong.unless(
        endpoints(cluster, "multiport", &[]),
        "Services should serve a basic endpoint from pods",
        "not empty at first",
    );
    label(cluster, "netserver-0", "nobody-yet");
    label(cluster, "second-port", "nobody-yet");
    let all = [("netserver-0", 9376), ("netserver-0", 8080), ("second-port", 9376), ("second-port", 8080)];
    wrong.unless(
        endpoints(cluster, "multiport", &all),
        "Services should serve multiport endpoints from pods",
        "not all endpoints",
    );
    must_reach(cluster, wrong, "Services should serve multiport endpoints from pods", &url, &["netserver-0"]);
    must_reach(
        cluster,
        wrong,
        "Services should serve multiport endpoints from pods",
        &other,
        &["second-port"],
    );
    label(cluster, "netserver-0", "affinity");
    label(cluster, "second-port", "second");
    wrong.unless(
        endpoints(cluster, "multiport", &[]),
        "Services should serve a basic endpoint from pods",
        "not empty at last",
    );
}

fn services_keep_and_lose_their_affinity(cluster: &Cluster, wrong: &mut Wrong) {
    let node_port = cluster.get("service affinity-nodeport")["spec"]["ports"][0]["nodePort"].to_string();
    for (name, url) in [
        ("affinity-clusterip", cluster_ip(cluster, "affinity-clusterip")),
        ("affinity-nodeport", cluster_ip(cluster, "affinity-nodeport")),
        ("affinity-nodeport", format!("{NODE}:{node_port}")),
    ] {
        let behaviour = format!("Services should have session affinity work for {name}: {url}");
        let sticks = |cluster: &Cluster| {
            let seen = answers(cluster, &url, 16);
            (seen.len() == 16 && seen.iter().all(|pod| *pod == seen[0] && pod != "-"), seen)
        };
        let begin = std::time::Instant::now();
        let mut last = sticks(cluster);
        while !last.0 && begin.elapsed() < crate::node::PATIENCE / 3 {
            last = sticks(cluster);
        }
        wrong.unless(last.0, &behaviour, format!("{:?}", last.1));
        cluster.node.kubectl(&["patch", "service", name, "-p", r#"{"spec":{"sessionAffinity":"None"}}"#]);
        must_reach(
            cluster,
            wrong,
            &behaviour.replace("have session affinity work", "be able to switch session affinity"),
            &url,
            &SERVERS,
        );
        cluster.node.kubectl(&["patch", "service", name, "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]);
        let begin = std::time::Instant::now();
        while !last.0 || begin.elapsed().is_zero() {
            last = sticks(cluster);
            if begin.elapsed() > crate::node::PATIENCE / 3 {
                break;
            }
        }
        wrong.unless(
            last.0,
            &behaviour.replace("have session affinity work", "be able to switch session affinity"),
            format!("{:?}", last.1),
        );
    }
}

fn one_port_serves_both_protocols(cluster: &Cluster, wrong: &mut Wrong) {
    let ip = cluster_ip(cluster, "both-protocols");
    must_reach(
        cluster,
        wrong,
        "Services should serve endpoints on same port and different protocols",
        &ip,
        &SERVERS,
    );
    let from = address(cluster, SERVERS[0]);
    let url = format!("http://{from}:9376/dial?request=hostname&protocol=udp&host={ip}&port=80&tries=5");
    let said = cluster.ask("execpod", &url, 1);
    let right = said.contains("\"errors\": []") && said.contains("netserver-");
    wrong.unless(right, "Services should serve endpoints on same port and different protocols", said);
}

fn services_change_their_types(cluster: &Cluster, wrong: &mut Wrong) {
    let patch = |name: &str, spec: Value| {
        cluster.node.kubectl(&[
            "patch",
            "service",
            name,
            "--type=merge",
            "-p",
            &json!({"spec": spec}).to_string(),
        ])
    };
    let ports = json!([port("http", 80, 9376, "TCP")]);
    let app = json!({"app": "affinity"});
    cluster.create(&[service("changes", json!({"type": "ExternalName", "externalName": "example.com"}))]);
    let behaviour = "Services should be able to change the type from ExternalName to ClusterIP";
    patch("changes", json!({"type": "ClusterIP", "externalName": null, "ports": ports, "selector": app}));
    must_reach(cluster, wrong, behaviour, &cluster_ip(cluster, "changes"), &SERVERS);
    let resolves = |name: &str| {
        cluster.exec(
            "netserver-0",
            &python(cluster, &format!("import socket; print(socket.gethostbyname('{name}'))")),
        )
    };
    let target = cluster_ip(cluster, "affinity-clusterip");
    let external = json!({"type": "ExternalName", "externalName": "affinity-clusterip.default.svc.cluster.local", "clusterIP": null, "clusterIPs": null, "selector": null});
    for (kind, behaviour) in [
        ("ClusterIP", "Services should be able to change the type from ClusterIP to ExternalName"),
        ("NodePort", "Services should be able to change the type from NodePort to ExternalName"),
    ] {
        if kind == "NodePort" {
            patch(
                "changes",
                json!({"type": "NodePort", "externalName": null, "ports": ports, "selector": app}),
            );
            let node_port = cluster.get("service changes")["spec"]["ports"][0]["nodePort"].to_string();
            must_reach(
                cluster,
                wrong,
                "Services should be able to change the type from ExternalName to NodePort",
                &format!("{NODE}:{node_port}"),
                &SERVERS,
            );
            must_reach(
                cluster,
                wrong,
                "Services should be able to create a functioning NodePort service",
                &cluster_ip(cluster, "changes"),
                &SERVERS,
            );
        }
        patch("changes", external.clone());
        let begin = std::time::Instant::now();
        let mut seen = resolves("changes.default.svc.cluster.local");
        while seen.trim() != target && begin.elapsed() < crate::node::PATIENCE / 3 {
            seen = resolves("changes.default.svc.cluster.local");
        }
        wrong.unless(seen.trim() == target, behaviour, seen);
    }
}

/// Runs a line of Python in a pod of the test image.
fn python(cluster: &Cluster, script: &str) -> String {
    format!("{} -c \"{script}\"", cluster.python[0])
}

fn slices_by_hand_are_served(cluster: &Cluster, wrong: &mut Wrong) {
    let slice = |name: &str, pods: &[&str], ports: Value| {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|pod| json!({"addresses": [address(cluster, pod)], "conditions": {"ready": true}}))
            .collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name,
            "labels": {"kubernetes.io/service-name": "by-hand", "endpointslice.kubernetes.io/managed-by": "e2e-test"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
    };
    let first = || json!([{"name": "first", "port": 9376, "protocol": "TCP"}]);
    let second = json!([{"name": "second", "port": 8080, "protocol": "TCP"}]);
    cluster.create(&[
        slice("by-hand-1", &["netserver-0"], first()),
        slice("by-hand-2", &["netserver-1"], first()),
        slice("by-hand-3", &["second-port"], second),
    ]);
    let ip = cluster_ip(cluster, "by-hand");
    must_reach(
        cluster,
        wrong,
        "EndpointSlice … multiple endpoint IPs specified in multiple EndpointSlices",
        &ip,
        &["netserver-0", "netserver-1"],
    );
    must_reach(
        cluster,
        wrong,
        "EndpointSlice … multiple ports specified in multiple EndpointSlices",
        &format!("{ip}:81"),
        &["second-port"],
    );
}

fn names_are_answered(cluster: &Cluster, wrong: &mut Wrong) {
    let (service, named) = (cluster_ip(cluster, "affinity-clusterip"), address(cluster, "dns-querier-2"));
    let own = address(cluster, "netserver-0");
    let kubernetes = cluster_ip(cluster, "kubernetes");
    for (behaviour, name, wanted) in [
        ("DNS should provide DNS for the cluster", "kubernetes.default.svc.cluster.local", &kubernetes),
        ("DNS should provide DNS for the cluster", "kubernetes.default", &kubernetes),
        ("DNS should provide DNS for services", "affinity-clusterip.default.svc.cluster.local", &service),
        ("DNS should resolve DNS of partial qualified names for services", "affinity-clusterip", &service),
        (
            "DNS should resolve DNS of partial qualified names for services",
            "affinity-clusterip.default",
            &service,
        ),
        (
            "DNS should resolve DNS of partial qualified names for services",
            "affinity-clusterip.default.svc",
            &service,
        ),
        ("DNS should provide DNS for pods for Subdomain", "headless.default.svc.cluster.local", &named),
        (
            "DNS should provide DNS for pods for Hostname",
            "dns-querier-2.headless.default.svc.cluster.local",
            &named,
        ),
        ("DNS should provide DNS for ExternalName services", "external.default.svc.cluster.local", &service),
    ] {
        let script = python(cluster, &format!("import socket; print(socket.gethostbyname('{name}'))"));
        let seen = cluster.exec("netserver-0", &script);
        wrong.unless(seen.trim() == wanted, behaviour, format!("{name}: {seen}, not {wanted}"));
    }
    let reverse = python(cluster, &format!("import socket; print(socket.gethostbyaddr('{service}')[0])"));
    let seen = cluster.exec("netserver-0", &reverse);
    wrong.unless(
        seen.trim() == "affinity-clusterip.default.svc.cluster.local",
        "DNS should provide DNS for services: PTR",
        seen,
    );
    for (kind, name, part) in [
        (
            "srv",
            "_http._tcp.affinity-clusterip.default.svc.cluster.local".to_owned(),
            "affinity-clusterip.default.svc.cluster.local",
        ),
        (
            "srv",
            "_http._tcp.headless.default.svc.cluster.local".to_owned(),
            "dns-querier-2.headless.default.svc.cluster.local",
        ),
        (
            "cname",
            "external.default.svc.cluster.local".to_owned(),
            "affinity-clusterip.default.svc.cluster.local",
        ),
        ("a", format!("{}.default.pod.cluster.local", own.replace('.', "-")), own.as_str()),
    ] {
        let seen =
            cluster.exec("execpod", &format!("{} /agnhost.py dig {kind} {name} {DNS}", cluster.python[0]));
        wrong.unless(
            seen.contains(part),
            "DNS should provide DNS for services",
            format!("{kind} {name}: {seen}"),
        );
    }
}

fn host_ports_do_not_conflict(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol";
    let own = |name: &str, ip: &str, container: u16, protocol: &str| {
        let mut pod = cluster.agnhost(name, &["netexec", "8080", "8081"]);
        pod["spec"]["containers"][0]["ports"] =
            json!([{"hostPort": 54323, "containerPort": container, "protocol": protocol, "hostIP": ip}]);
        pod
    };
    cluster.create(&[
        own("port-1", "127.0.0.1", 8080, "TCP"),
        own("port-2", NODE, 8080, "TCP"),
        own("port-3", NODE, 8081, "UDP"),
    ]);
    for name in ["port-1", "port-2", "port-3"] {
        cluster.ready(name);
    }
    for (from, to, wanted) in
        [(NODE, "127.0.0.1", "port-1"), ("127.0.0.1", "127.0.0.1", "port-1"), (NODE, NODE, "port-2")]
    {
        // A pod without a probe is Ready before it listens: the suite asks again as well.
        let again = "--retry 5 --retry-connrefused --retry-delay 1 --connect-timeout 5";
        let ask = format!("curl -sS {again} --interface {from} http://{to}:54323/hostname 2>/dev/null");
        let seen = crate::node::text(&cluster.node.shell(&ask));
        wrong.unless(seen.ends_with(wanted), behaviour, format!("{from} {to}: {seen}"));
    }
    let udp = format!(
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b'hostname', ('{NODE}', 54323)); print(s.recv(99).decode())"
    );
    let seen = cluster.exec("host-test-container", &python(cluster, &udp));
    wrong.unless(seen.trim() == "port-3", behaviour, seen);
    cluster.node.kubectl(&["delete", "pod", "port-1", "port-2", "port-3", "--wait=false"]);
}

fn the_proxy_passes_everything_on(cluster: &Cluster, wrong: &mut Wrong) {
    let mut porter = labelled(cluster.agnhost("porter", &["porter"]), "porter");
    let container = &mut porter["spec"]["containers"][0];
    container["env"] = json!([{"name": "SERVE_PORT_80", "value": "<a href=\"/rewriteme\">test</a>"}, {"name": "SERVE_PORT_160", "value": "foo"},
        {"name": "SERVE_PORT_162", "value": "bar"}, {"name": "SERVE_PORT_1080", "value": "echo"}]);
    container["ports"] =
        json!([{"name": "dest1", "containerPort": 160}, {"name": "dest2", "containerPort": 162}]);
    container["readinessProbe"] = json!({"httpGet": {"port": 80}, "periodSeconds": 1});
    let ports = json!([{"name": "portname1", "port": 80, "targetPort": "dest1"}, {"name": "portname2", "port": 81, "targetPort": 162},
        {"name": "echo", "port": 82, "targetPort": 1080}]);
    cluster
        .create(&[porter, service("proxy-service", json!({"selector": {"app": "porter"}, "ports": ports}))]);
    cluster.ready("porter");
    let (pods, services) = ("/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services");
    cluster
        .until("endpoints proxy-service", |endpoints| endpoints["subsets"][0]["addresses"].is_array())
        .ok();
    for (path, wanted) in [
        (format!("{services}/proxy-service:portname1/proxy/"), "foo".to_owned()),
        (format!("{services}/http:proxy-service:portname1/proxy/"), "foo".to_owned()),
        (format!("{services}/proxy-service:portname2/proxy/"), "bar".to_owned()),
        (format!("{services}/http:proxy-service:portname2/proxy/"), "bar".to_owned()),
        (format!("{services}/proxy-service:80/proxy/"), "foo".to_owned()),
        // The first port that the pod names.
        (format!("{pods}/porter/proxy/"), "foo".to_owned()),
        (
            format!("{pods}/porter:80/proxy/"),
            format!("<a href=\"{pods}/porter:80/proxy/rewriteme\">test</a>"),
        ),
        (
            format!("{pods}/http:porter:80/proxy/"),
            format!("<a href=\"{pods}/http:porter:80/proxy/rewriteme\">test</a>"),
        ),
        (format!("{pods}/porter:160/proxy/"), "foo".to_owned()),
        (format!("{pods}/http:porter:162/proxy/"), "bar".to_owned()),
    ] {
        let seen = crate::node::text(&cluster.node.shell(&format!("kubectl get --raw '{path}'")));
        wrong.unless(
            seen.ends_with(&wanted),
            "Proxy version v1 should proxy through a service and a pod",
            format!("{path}: {seen}, not {wanted}"),
        );
    }
    let server = "--cert <(kubectl config view --raw -o 'jsonpath={.users[0].user.client-certificate-data}' | base64 -d) --key <(kubectl config view --raw -o 'jsonpath={.users[0].user.client-key-data}' | base64 -d)";
    for base in [format!("{pods}/porter:1080/proxy"), format!("{services}/proxy-service:echo/proxy")] {
        for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT", "GET", "HEAD"] {
            let head = if method == "HEAD" { "--head".to_owned() } else { format!("-X {method}") };
            let ask =
                format!("curl -sSk {server} {head} 'https://{NODE}:6443{base}/some/path/with/{method}'");
            let output = cluster.node.finish(cluster.node.inside("bash").args(["-c", &ask]));
            let seen = crate::node::text(&output);
            let right = if method == "HEAD" {
                seen.contains(" 200")
            } else {
                seen.contains(&format!("\"method\": \"{method}\", \"path\": \"/some/path/with/{method}\""))
            };
            wrong.unless(right, "Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath", format!("{base}: {seen}"));
        }
        // Without a path: a redirection to the one with a slash, for GET and HEAD.
        let ask = format!(
            "curl -sSk {server} -o /dev/null -w '%{{http_code}} %{{redirect_url}}' 'https://{NODE}:6443{base}?method=GET'"
        );
        let output = cluster.node.finish(cluster.node.inside("bash").args(["-c", &ask]));
        let seen = crate::node::text(&output);
        wrong.unless(
            seen.contains(&format!("301 https://{NODE}:6443{base}/?method=GET")),
            "Proxy version v1 … ProxyWithPath: redirection",
            format!("{base}: {seen}"),
        );
    }
}

fn endpoints_come_quickly(cluster: &Cluster, wrong: &mut Wrong) {
    let services: Vec<_> = (0..50)
        .map(|i| {
            service(
                &format!("latency-svc-{i}"),
                json!({"selector": {"app": "second"}, "ports": [{"port": 80}]}),
            )
        })
        .collect();
    let begin = std::time::Instant::now();
    cluster.create(&services);
    let ready = cluster.until("endpoints", |list| {
        let all = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |e: &&Value| {
            e["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("latency-svc-"))
                && e["subsets"][0]["addresses"].is_array()
        };
        all.iter().filter(of).count() == 50
    });
    let right = ready.is_ok() && begin.elapsed().as_secs() < 50;
    wrong.unless(
        right,
        "Service endpoints latency should not be very high",
        format!("{:?}", begin.elapsed()),
    );
}

fn the_api_server_is_reached_by_its_service(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "API Server should have Endpoints and EndpointSlices pointing to API Server";
    let endpoints = cluster.get("endpoints kubernetes");
    let addresses: Vec<_> = endpoints["subsets"][0]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| a["ip"].clone())
        .collect();
    wrong.unless(addresses == [json!(NODE)], behaviour, &endpoints);
    let slices = cluster.get("endpointslices -l kubernetes.io/service-name=kubernetes");
    let slice = &slices["items"][0];
    let right = slice["endpoints"][0]["addresses"] == json!([NODE])
        && slice["ports"][0]["port"] == endpoints["subsets"][0]["ports"][0]["port"];
    wrong.unless(right, behaviour, &slices);
    let ask = "import ssl, urllib.request; c = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt'); print(urllib.request.urlopen('https://kubernetes.default.svc/version', context=c).read().decode())";
    let seen = cluster.exec("netserver-0", &python(cluster, ask));
    wrong.unless(seen.contains("gitVersion"), "API Server should provide secure master service", seen);
}
