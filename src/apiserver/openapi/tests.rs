//! Documents describe what is served, in every format, and are answered as HTTP caches expect.

use std::collections::BTreeMap;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::Value;

use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn row(group: &str, kind: &str, plural: &str, namespaced: bool) -> Served {
    Served {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
        verbs: strings(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
        subresources: Vec::new(),
        own: None,
    }
}

fn sub(name: &str, body: (&str, &str, &str), verbs: &[&str]) -> ServedSubresource {
    let body = (body.0.to_owned(), body.1.to_owned(), body.2.to_owned());
    ServedSubresource { name: name.to_owned(), body, verbs: strings(verbs) }
}

fn open_api() -> OpenApi {
    let mut pods = row("", "Pod", "pods", true);
    pods.subresources = vec![
        sub("status", ("", "v1", "Pod"), &["get", "patch", "update"]),
        sub("log", ("", "v1", "Pod"), &["get"]),
        sub("exec", ("", "v1", "PodExecOptions"), &["connect"]),
        sub("binding", ("", "v1", "Binding"), &["create"]),
    ];
    let mut deployments = row("apps", "Deployment", "deployments", true);
    deployments.subresources =
        vec![sub("scale", ("autoscaling", "v1", "Scale"), &["get", "patch", "update"])];
    let mut review = row("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", false);
    review.verbs = strings(&["create"]);
    let roles = row("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false);
    OpenApi::new(vec![pods, deployments, review, roles], Vec::new())
}

fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

async fn v2_json() -> Value {
    let response = open_api().v2(&HeaderMap::new()).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn v2_has_the_paths_of_what_is_served() {
    let document = v2_json().await;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/namespaces/{namespace}/pods",
            "/api/v1/namespaces/{namespace}/pods/{name}",
            "/api/v1/namespaces/{namespace}/pods/{name}/binding",
            "/api/v1/namespaces/{namespace}/pods/{name}/exec",
            "/api/v1/namespaces/{namespace}/pods/{name}/log",
            "/api/v1/namespaces/{namespace}/pods/{name}/status",
            "/api/v1/pods",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/namespaces/{namespace}/deployments",
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
        ]
    );
}

#[tokio::test]
async fn operations_carry_names_kinds_and_parameters() {
    let document = v2_json().await;
    let operation = |path: &str, method: &str| document["paths"][path][method].clone();
    let cases = [
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces", "list", "Pod"),
        ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod", "post", "Pod"),
        (
            "/api/v1/namespaces/{namespace}/pods",
            "delete",
            "deleteCoreV1CollectionNamespacedPod",
            "deletecollection",
            "Pod",
        ),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "get", "readCoreV1NamespacedPod", "get", "Pod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog", "get", "Pod"),
        (
            "/api/v1/namespaces/{namespace}/pods/{name}/exec",
            "get",
            "connectCoreV1GetNamespacedPodExec",
            "connect",
            "PodExecOptions",
        ),
        (
            "/api/v1/namespaces/{namespace}/pods/{name}/binding",
            "post",
            "createCoreV1NamespacedPodBinding",
            "post",
            "Binding",
        ),
        (
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
            "put",
            "replaceAppsV1NamespacedDeploymentScale",
            "put",
            "Scale",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
            "delete",
            "deleteRbacAuthorizationV1ClusterRole",
            "delete",
            "ClusterRole",
        ),
    ];
    for (path, method, id, action, kind) in cases {
        let operation = operation(path, method);
        assert_eq!(operation["operationId"], id);
        assert_eq!(operation["x-kubernetes-action"], action, "{id}");
        assert_eq!(operation["x-kubernetes-group-version-kind"]["kind"], kind, "{id}");
    }
    let patch = operation("/apis/apps/v1/namespaces/{namespace}/deployments/{name}", "patch");
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["body", "dryRun", "fieldManager", "fieldValidation", "force"]);
    assert!(patch["consumes"].as_array().unwrap().contains(&"application/apply-patch+yaml".into()));
    assert_eq!(
        operation("/apis/rbac.authorization.k8s.io/v1/clusterroles", "get")["tags"][0],
        "rbacAuthorization_v1"
    );
}

#[tokio::test]
async fn definitions_are_those_that_are_referred_to() {
    let document = v2_json().await;
    let definitions = document["definitions"].as_object().unwrap();
    for name in
        ["io.k8s.api.core.v1.PodSpec", "io.k8s.api.apps.v1.DeploymentList", "io.k8s.api.autoscaling.v1.Scale"]
    {
        assert!(definitions.contains_key(name), "{name}");
    }
    assert!(!definitions.contains_key("io.k8s.api.core.v1.NodeSpec"));
    let kinds =
        &definitions["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"];
    assert_eq!(kinds.as_array().unwrap().len(), 4);
    assert!(
        definitions["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"].get("default").is_none()
    );
    // No reference leads nowhere.
    let text = document.to_string();
    for (at, prefix) in text.match_indices("#/definitions/") {
        let name = text[at + prefix.len()..].split('"').next().unwrap();
        assert!(definitions.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn v3_has_a_document_for_each_group() {
    let api = open_api();
    let root: Value = serde_json::from_slice(api.v3_root(&HeaderMap::new()).body()).unwrap();
    let paths = root["paths"].as_object().unwrap();
    let names: Vec<_> = paths.keys().collect();
    assert_eq!(
        names,
        ["api/v1", "apis/apps/v1", "apis/authorization.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1"]
    );
    let url = paths["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let hash = url.strip_prefix("/openapi/v3/apis/apps/v1?hash=").unwrap();
    let response = api.v3_group("apis/apps/v1", Some(hash), &HeaderMap::new()).await;
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(document["openapi"], "3.0.0");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"].get("oneOf").is_some());
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["requestBody"]["content"]["application/merge-patch+json"].is_object());
    let text = document.to_string();
    assert!(!text.contains("#/definitions/") && !text.contains("/api/v1/pods"));
    for (at, prefix) in text.match_indices("#/components/schemas/") {
        let name = text[at + prefix.len()..].split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn answers_follow_the_rules_of_http() {
    let api = open_api();
    let first = api.v2(&headers(&[(ACCEPT_ENCODING, "deflate, gzip")])).await;
    assert_eq!(first.headers()[CONTENT_ENCODING], "gzip");
    assert!(first.body().len() < 400_000, "{} bytes", first.body().len());
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(api.v2(&headers(&[(IF_NONE_MATCH, &tag)])).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(api.v2(&headers(&[(IF_NONE_MATCH, "\"x\"")])).await.status(), StatusCode::OK);
    assert_eq!(api.v2(&headers(&[(ACCEPT, "text/html")])).await.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(api.v2(&headers(&[(ACCEPT, "text/html, */*;q=0.1")])).await.status(), StatusCode::OK);
    assert_eq!(api.v3_root(&headers(&[(ACCEPT, "text/html")])).status(), StatusCode::NOT_ACCEPTABLE);
    let none = HeaderMap::new();
    assert_eq!(api.v3_group("apis/none/v1", None, &none).await.status(), StatusCode::NOT_FOUND);
    let old = api.v3_group("/api/v1", Some("OLD"), &none).await;
    assert_eq!(old.status(), StatusCode::MOVED_PERMANENTLY);
    assert!(old.headers()[LOCATION].to_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    let other = OpenApi::new(vec![row("", "Pod", "pods", true)], Vec::new());
    assert_ne!(other.v2(&none).await.headers()[ETAG], tag.as_str());
}

/// Splits a protobuf message into its length-delimited fields.
fn fields(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (field, wire) = decode_key(&mut bytes).unwrap();
        match wire {
            WireType::Varint => {
                decode_varint(&mut bytes).unwrap();
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).unwrap() as usize;
                let (value, rest) = bytes.split_at(length);
                found.push((field, value));
                bytes = rest;
            }
            other => panic!("{other:?}"),
        }
    }
    found
}

fn entries(bytes: &[u8], field: u32) -> BTreeMap<String, &[u8]> {
    let entry = |value| {
        let parts = fields(value);
        (String::from_utf8(parts[0].1.to_vec()).unwrap(), parts[1].1)
    };
    fields(bytes).into_iter().filter(|(f, _)| *f == field).map(|(_, value)| entry(value)).collect()
}

#[tokio::test]
async fn protobuf_has_the_same_paths_and_definitions() {
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json";
    let response = open_api().v2(&headers(&[(ACCEPT, accept)])).await;
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    let document = fields(response.body());
    let part = |number| document.iter().find(|(field, _)| *field == number).unwrap().1;
    let json = v2_json().await;
    let paths = entries(part(8), 2);
    assert!(paths.keys().eq(json["paths"].as_object().unwrap().keys()));
    let definitions = entries(part(9), 1);
    assert!(definitions.keys().eq(json["definitions"].as_object().unwrap().keys()));
    let pod = definitions["io.k8s.api.core.v1.Pod"];
    let extensions = entries(pod, 31);
    let any = fields(extensions["x-kubernetes-group-version-kind"]);
    assert_eq!(any, [(2, &br#"[{"group":"","kind":"Pod","version":"v1"}]"#[..])]);
    let properties = fields(pod).into_iter().find(|(field, _)| *field == 25).unwrap().1;
    let spec = entries(properties, 1)["spec"];
    assert_eq!(fields(spec)[0], (1, &b"#/definitions/io.k8s.api.core.v1.PodSpec"[..]));
}

#[tokio::test]
async fn protobuf_of_v3_says_the_same() {
    let accept = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let api = open_api();
    let response = api.v3_group("apis/apps/v1", None, &headers(&[(ACCEPT, accept)])).await;
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
    );
    let json = api.v3_group("apis/apps/v1", None, &HeaderMap::new()).await;
    let json: Value = serde_json::from_slice(json.body()).unwrap();
    let part = |bytes: &[u8], number| {
        fields(bytes).into_iter().find(|(field, _)| *field == number).unwrap().1.to_vec()
    };
    let body = response.body();
    assert_eq!(part(body, 1), b"3.0.0");
    let paths = part(body, 4);
    assert!(entries(&paths, 1).keys().eq(json["paths"].as_object().unwrap().keys()));
    let schemas = part(&part(body, 5), 1);
    let schemas = entries(&schemas, 1);
    assert!(schemas.keys().eq(json["components"]["schemas"].as_object().unwrap().keys()));
    let deployment = part(schemas["io.k8s.api.apps.v1.Deployment"], 1);
    let extensions = entries(&deployment, 36);
    let any = fields(extensions["x-kubernetes-group-version-kind"]);
    assert_eq!(any, [(2, &br#"[{"group":"apps","kind":"Deployment","version":"v1"}]"#[..])]);
    let properties = part(&deployment, 31);
    let spec = part(entries(&properties, 1)["spec"], 1);
    let reference = part(&part(&part(&spec, 26), 2), 1);
    assert_eq!(reference, b"#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    // What kubectl looks for before it leaves the checking of fields to the server.
    let item = entries(&paths, 1)["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"].to_vec();
    let patch = part(&item, 10);
    let names: Vec<_> = fields(&patch)
        .into_iter()
        .filter(|(field, _)| *field == 6)
        .map(|(_, parameter)| String::from_utf8(part(&part(parameter, 1), 1)).unwrap())
        .collect();
    assert!(names.contains(&"fieldValidation".to_owned()), "{names:?}");
}

#[tokio::test]
async fn only_openapis_own_paths_are_answered() {
    let api = open_api();
    let none = HeaderMap::new();
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openapi/v3/api/v1"] {
        assert_eq!(api.answer_path(path, None, &none).await.unwrap().status(), StatusCode::OK, "{path}");
    }
    for path in ["/openapi", "/openapi/v2x", "/openapi/v33", "/api"] {
        assert!(api.answer_path(path, None, &none).await.is_none(), "{path}");
    }
}
