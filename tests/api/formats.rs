//! What requests and answers look like on the wire: formats, codes, headers.

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::server::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test]
async fn wrong_requests_get_the_right_status() {
    let server = TestServer::start().await;
    let json = ("content-type", "application/json");
    let cases = [
        (request("GET", "/api/v1/nonsense", &[], ""), 404, "NotFound"),
        (request("GET", "/apis/none.example/v1/things", &[], ""), 404, "NotFound"),
        (request("GET", "/nothing", &[], ""), 404, "NotFound"),
        (request("GET", "/api/v1/namespaces/default/nodes", &[], ""), 404, "NotFound"),
        (request("GET", &format!("{MAPS}/none"), &[], ""), 404, "NotFound"),
        (request("GET", &format!("{MAPS}/none/status"), &[], ""), 404, "NotFound"),
        (request("POST", "/api/v1/configmaps", &[json], map("a").to_string()), 405, "MethodNotAllowed"),
        (request("PUT", MAPS, &[json], map("a").to_string()), 405, "MethodNotAllowed"),
        (request("POST", &format!("{MAPS}/a"), &[json], map("a").to_string()), 405, "MethodNotAllowed"),
        (request("POST", "/api", &[json], "{}"), 405, "MethodNotAllowed"),
        (request("GET", MAPS, &[("accept", "text/html")], ""), 406, "NotAcceptable"),
        (request("POST", MAPS, &[("content-type", "text/plain")], "x"), 415, "UnsupportedMediaType"),
        (request("PATCH", &format!("{MAPS}/a"), &[json], "{}"), 415, "UnsupportedMediaType"),
        (request("POST", MAPS, &[json], vec![b' '; 4 << 20]), 413, "RequestEntityTooLarge"),
        (request("POST", MAPS, &[json], "{"), 400, "BadRequest"),
        (request("POST", &format!("{MAPS}?dryRun=Maybe"), &[json], map("a").to_string()), 422, "Invalid"),
        (request("GET", &format!("{MAPS}?timeout=soon"), &[], ""), 400, "BadRequest"),
        (request("GET", &format!("{MAPS}?labelSelector=a=b=c"), &[], ""), 400, "BadRequest"),
    ];
    for (request, code, reason) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let response = server.raw(request).await;
        assert_eq!(response.status().as_u16(), code, "{what}");
        assert!(response.headers().contains_key("audit-id"), "{what}");
        let status: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(
            (&status["kind"], &status["reason"], &status["code"]),
            (&json!("Status"), &json!(reason), &json!(code)),
            "{what}"
        );
    }
}

#[tokio::test]
async fn apply_needs_a_manager_and_force_needs_an_apply() {
    let server = TestServer::start().await;
    let apply = ("content-type", "application/apply-patch+yaml");
    let merge = ("content-type", "application/merge-patch+json");
    for (headers, query, message) in [
        (apply, "", "fieldManager: Required value: is required for apply patch"),
        (merge, "?force=true", "force: Forbidden: may not be specified for non-apply patch"),
    ] {
        let response = server.raw(request("PATCH", &format!("{MAPS}/a{query}"), &[headers], "{}")).await;
        let status: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(status["code"], 422);
        assert!(status["message"].as_str().unwrap().contains(message), "{status}");
    }
}

#[tokio::test]
async fn objects_come_in_the_format_and_shape_asked_for() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n";
    let created = server.raw(request("POST", MAPS, &[("content-type", "application/yaml")], yaml)).await;
    assert_eq!(created.status(), 201);
    let get = |accept: &'static str| {
        let server = &server;
        async move {
            let response = server.raw(request("GET", &format!("{MAPS}/a"), &[("accept", accept)], "")).await;
            assert_eq!(response.status(), 200, "{accept}");
            text(response).await
        }
    };
    assert!(get("application/yaml").await.contains("kind: ConfigMap"));
    let table: Value =
        serde_json::from_str(&get("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await)
            .unwrap();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["rows"][0]["cells"][0], "a");
    let partial = get("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    let partial: Value = serde_json::from_str(&partial).unwrap();
    assert_eq!((&partial["kind"], partial.get("data")), (&json!("PartialObjectMetadata"), None));
    let pretty = server.raw(request("GET", &format!("{MAPS}/a?pretty=true"), &[], "")).await;
    assert!(text(pretty).await.contains("\n  \"kind\": \"ConfigMap\""));
}

#[tokio::test]
async fn large_lists_are_compressed_for_who_accepts_it() {
    let server = TestServer::start().await;
    for at in 0..3 {
        let mut map = map(&format!("m{at}"));
        map["data"]["k"] = "x".repeat(100_000).into();
        server.send("POST", MAPS, Some(map)).await;
    }
    let plain = server.raw(request("GET", MAPS, &[], "")).await;
    assert!(plain.headers().get("content-encoding").is_none());
    let response = server.raw(request("GET", MAPS, &[("accept-encoding", "gzip")], "")).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let unpacked: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&bytes[..])).unwrap();
    assert_eq!(unpacked["kind"], "ConfigMapList");
    assert!(bytes.len() < 30_000);
}

#[tokio::test]
async fn unknown_fields_are_warned_about() {
    let server = TestServer::start().await;
    let mut map = map("a");
    map["dada"] = json!({});
    let json = ("content-type", "application/json");
    let response = server.raw(request("POST", MAPS, &[json], map.to_string())).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.starts_with("299 - \"") && warning.contains("dada"), "{warning}");
    let strict = request("POST", &format!("{MAPS}?fieldValidation=Strict"), &[json], map.to_string());
    assert_eq!(server.raw(strict).await.status(), 400);
}

#[tokio::test]
async fn discovery_names_what_is_served() {
    let server = TestServer::start().await;
    let (_, versions) = server.send("GET", "/api", None).await;
    assert_eq!(versions["versions"], json!(["v1"]));
    let (_, groups) = server.send("GET", "/apis", None).await;
    let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    let (_, core) = server.send("GET", "/api/v1", None).await;
    let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
    let pods = find("pods").unwrap();
    assert_eq!(
        (&pods["kind"], &pods["shortNames"], &pods["namespaced"]),
        (&json!("Pod"), &json!(["po"]), &json!(true))
    );
    assert!(find("pods/log").is_some() && find("pods/status").is_some());
    let (_, apps) = server.send("GET", "/apis/apps/v1", None).await;
    let scale =
        apps["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
}

#[tokio::test]
async fn aggregated_discovery_has_an_etag_and_its_own_content_type() {
    let server = TestServer::start().await;
    let accept =
        ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    let response = server.raw(request("GET", "/apis", &[accept], "")).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let protobuf =
        ("accept", "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let same = server.raw(request("GET", "/apis", &[protobuf], "")).await;
    assert_eq!(same.headers()["content-type"], protobuf.1);
    let same = crate::protobuf::decoded(&same.into_body().collect().await.unwrap().to_bytes());
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let list: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    assert_eq!((&same["items"], &same["apiVersion"]), (&list["items"], &list["apiVersion"]));
    let again = server.raw(request("GET", "/apis", &[accept, ("if-none-match", &etag)], "")).await;
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn version_health_metrics_and_keys_are_served() {
    let server = TestServer::start().await;
    let (code, version) = server.send("GET", "/version", None).await;
    assert_eq!((code, &version["minor"]), (200, &json!("36")));
    assert_eq!(server.send("GET", "/readyz", None).await, (200, json!("ok")));
    let (_, metrics) = server.send("GET", "/metrics", None).await;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("apiserver_request_total{") && metrics.contains("process_resident_memory_bytes")
    );
    let (_, keys) = server.send("GET", "/openid/v1/jwks", None).await;
    assert_eq!(keys["keys"][0]["use"], "sig");
    let (_, config) = server.send("GET", "/.well-known/openid-configuration", None).await;
    assert_eq!(config["issuer"], "https://kubernetes.default.svc.cluster.local");
    let (_, root) = server.send("GET", "/", None).await;
    assert!(root["paths"].as_array().unwrap().contains(&json!("/apis/apps/v1")));
}
