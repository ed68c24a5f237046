//! `[sig-auth]`, `[sig-instrumentation]` and `API priority and fairness`: operations on objects of the API alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{count, patch, post, put, until};
use crate::server::TestServer;

#[tokio::test]
async fn csr_api_operations_are_supported() {
    let server = TestServer::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec!["e2e.example.com".to_owned()]).unwrap();
    let request = STANDARD.encode(request.serialize_request(&key).unwrap().pem().unwrap());
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let template = json!({"metadata": {"generateName": "e2e-example-csr-"}, "spec": {"request": request,
        "signerName": "example.com/e2e", "expirationSeconds": 3600,
        "usages": ["digital signature", "key encipherment", "server auth"]}});
    let mut created = Value::Null;
    for _ in 0..3 {
        created = post(&server, path, template.clone()).await;
    }
    let one = format!("{path}/{}", created["metadata"]["name"].as_str().unwrap());
    let mine = format!("{path}?fieldSelector=spec.signerName%3Dexample.com%2Fe2e");
    assert_eq!((created["spec"]["expirationSeconds"].as_i64(), count(&server, &mine).await), (Some(3600), 3));
    let patched = patch(&server, &one, json!({"metadata": {"annotations": {"patched": "true"}}})).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    let approval = format!("{one}/approval");
    let change = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let mut patched = patch(&server, &approval, change).await;
    assert_eq!(
        (&patched["status"]["conditions"][0]["type"], &patched["metadata"]["annotations"]["patchedapproval"]),
        (&json!("ApprovalPatch"), &json!("true"))
    );
    let approved =
        json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(approved);
    let updated = put(&server, &approval, patched).await;
    assert_eq!(updated["status"]["conditions"][1]["type"], "Approved");
    let certificate = server.pki.admin().to_rustls().unwrap().0.remove(0);
    let pem = STANDARD.encode(format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(&certificate)
    ));
    let status = format!("{one}/status");
    let change =
        json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": pem}});
    let mut patched = patch(&server, &status, change).await;
    assert_eq!(
        (&patched["status"]["certificate"], &patched["metadata"]["annotations"]["patchedstatus"]),
        (&json!(pem), &json!("true"))
    );
    let more =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(more);
    let updated = put(&server, &status, patched).await;
    assert_eq!(updated["status"]["conditions"].as_array().unwrap().len(), 3);
    server.send("DELETE", &one, None).await;
    assert_eq!(count(&server, &mine).await, 2);
    let (code, _) = server.send("DELETE", &mine, None).await;
    assert_eq!((code, count(&server, &mine).await), (200, 0));
}

#[tokio::test]
async fn a_service_account_token_passes_a_review() {
    let server = TestServer::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = post(&server, accounts, json!({"metadata": {"name": "e2e", "labels": {"e2e": "1"}}})).await;
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let token = post(&server, &format!("{accounts}/e2e/token"), request).await["status"]["token"].clone();
    let review =
        post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await;
    assert_eq!(review["status"]["authenticated"], true, "{review}");
    let user = &review["status"]["user"];
    assert_eq!(
        (&user["username"], &user["uid"]),
        (&json!("system:serviceaccount:default:e2e"), &account["metadata"]["uid"])
    );
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    // Lifecycle of a ServiceAccount.
    let opted =
        patch(&server, &format!("{accounts}/e2e"), json!({"automountServiceAccountToken": false})).await;
    assert_eq!(opted["automountServiceAccountToken"], false);
    let (code, _) = server.send("DELETE", &format!("{accounts}?labelSelector=e2e%3D1"), None).await;
    assert_eq!((code, server.send("GET", &format!("{accounts}/e2e"), None).await.0), (200, 404));
}

#[tokio::test]
async fn subject_review_api_operations_are_supported() {
    let server = TestServer::start().await;
    let attributes =
        json!({"namespace": "default", "verb": "list", "resource": "configmaps", "version": "v1"});
    let review = json!({"spec": {"resourceAttributes": attributes, "user": "nobody"}});
    let group = "/apis/authorization.k8s.io/v1";
    let done = post(&server, &format!("{group}/subjectaccessreviews"), review.clone()).await;
    assert_eq!(done["status"]["allowed"], false, "{done}");
    let mut local = review;
    local["metadata"]["namespace"] = "default".into();
    let done = post(&server, &format!("{group}/namespaces/default/localsubjectaccessreviews"), local).await;
    assert_eq!(done["status"]["allowed"], false, "{done}");
}

#[tokio::test]
async fn events_are_fetched_patched_listed_and_deleted_in_both_groups() {
    let server = TestServer::start().await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"testevent-constant": "true"}},
        "regarding": {"namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "note": "This is a test event",
        "reason": "Test", "action": "Do", "type": "Normal", "reportingController": "test-controller", "reportingInstance": "test-node"})
    };
    post(&server, events, event("event-test")).await;
    let one = format!("{events}/event-test");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
    let patched = patch(&server, &one, series).await;
    assert_eq!(patched["series"]["count"], 2);
    let mut changed = patched;
    changed["series"]["count"] = json!(100);
    let updated = put(&server, &one, changed).await;
    assert_eq!(updated["series"]["lastObservedTime"], "2026-01-01T00:00:05.000000Z");
    let core = "/api/v1/namespaces/default/events";
    let (_, seen) = server.send("GET", &format!("{core}/event-test"), None).await;
    assert_eq!(
        (&seen["message"], &seen["reportingComponent"]),
        (&json!("This is a test event"), &json!("test-controller"))
    );
    let selected =
        count(&server, &format!("{core}?fieldSelector=reason%3DTest,reportingComponent%3Dtest-controller"))
            .await;
    assert_eq!(selected, 1);
    server.send("DELETE", &one, None).await;
    assert_eq!(count(&server, &format!("{events}?labelSelector=testevent-constant%3Dtrue")).await, 0);
    for name in ["a", "b", "c"] {
        post(&server, events, event(name)).await;
    }
    let all = format!("{events}?labelSelector=testevent-constant%3Dtrue");
    assert_eq!(
        count(&server, "/apis/events.k8s.io/v1/events?labelSelector=testevent-constant%3Dtrue").await,
        3
    );
    let (code, _) = server.send("DELETE", &all, None).await;
    assert_eq!((code, count(&server, &all).await), (200, 0));
}

#[tokio::test]
async fn flow_schemas_and_priority_levels_support_api_operations() {
    let server = TestServer::start().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let level = json!({"metadata": {"name": "e2e-pl", "labels": {"e2e": "1"}}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}});
    let levels = format!("{group}/prioritylevelconfigurations");
    post(&server, &levels, level).await;
    let schema = json!({"metadata": {"name": "e2e-fs", "labels": {"e2e": "1"}}, "spec": {"matchingPrecedence": 10000,
        "priorityLevelConfiguration": {"name": "global-default"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let schemas = format!("{group}/flowschemas");
    post(&server, &schemas, schema).await;
    let change =
        json!({"metadata": {"annotations": {"patched": "true"}}, "spec": {"matchingPrecedence": 9999}});
    let patched = patch(&server, &format!("{schemas}/e2e-fs"), change).await;
    assert_eq!(
        (&patched["spec"]["matchingPrecedence"], &patched["metadata"]["annotations"]["patched"]),
        (&json!(9999), &json!("true"))
    );
    for (one, kind) in [
        (format!("{schemas}/e2e-fs"), "FlowSchema"),
        (format!("{levels}/e2e-pl"), "PriorityLevelConfiguration"),
    ] {
        let status = format!("{one}/status");
        let (_, got) = server.send("GET", &status, None).await;
        assert_eq!(got["kind"], kind);
        let condition = json!({"type": "PatchStatusFailed", "status": "False", "reason": "Patched", "message": "by e2e",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let patched = patch(&server, &status, json!({"status": {"conditions": [condition]}})).await;
        assert!(
            patched["status"]["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "Patched"),
            "{patched}"
        );
        let (code, _) = server.send("DELETE", &one, None).await;
        assert_eq!((code, server.send("GET", &one, None).await.0), (200, 404));
    }
}

#[tokio::test]
async fn a_flow_schema_says_whether_its_priority_level_is_there() {
    let server = TestServer::start().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let schema = json!({"metadata": {"name": "dangles"}, "spec": {"matchingPrecedence": 500,
        "priorityLevelConfiguration": {"name": "not-yet"}}});
    post(&server, &format!("{group}/flowschemas"), schema).await;
    let status = async |wanted: &str| {
        until(async || {
            let (_, schema) = server.send("GET", &format!("{group}/flowschemas/dangles"), None).await;
            let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.into_iter().find(|c| c["type"] == "Dangling" && c["status"] == wanted)
        })
        .await
    };
    assert_eq!(status("True").await["reason"], "NotFound");
    let level = json!({"metadata": {"name": "not-yet"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    post(&server, &format!("{group}/prioritylevelconfigurations"), level).await;
    assert_eq!(status("False").await["reason"], "Found");
}

#[tokio::test]
async fn storage_is_protected_from_its_creation_on() {
    let server = TestServer::start().await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let made = post(&server, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let volume = json!({"metadata": {"name": "v", "finalizers": ["example.com/own"]}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x"}}});
    let made = post(&server, "/api/v1/persistentvolumes", volume).await;
    assert_eq!(made["metadata"]["finalizers"], json!(["example.com/own", "kubernetes.io/pv-protection"]));
}

#[tokio::test]
async fn every_service_address_is_an_ip_address_object() {
    let server = TestServer::start().await;
    let services = "/api/v1/namespaces/default/services";
    let made =
        post(&server, services, json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}))
            .await;
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{address}");
    let object = until(async || {
        let (code, object) = server.send("GET", &path, None).await;
        (code == 200).then_some(object)
    })
    .await;
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "web"});
    assert_eq!(object["spec"]["parentRef"], parent);
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(object["metadata"]["labels"], labels);
    server.send("DELETE", &format!("{services}/web"), None).await;
    until(async || (server.send("GET", &path, None).await.0 == 404).then_some(())).await;
}

#[tokio::test]
async fn ip_addresses_support_api_operations_whatever_range_they_are_from() {
    let server = TestServer::start().await;
    let path = "/apis/networking.k8s.io/v1/ipaddresses";
    for (ip, label) in [("255.255.255.255", "broadcast"), ("fe80::42:1dff:fe84:f9e2", "link-local")] {
        let parent =
            json!({"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"});
        let object =
            json!({"metadata": {"name": ip, "labels": {"type": label}}, "spec": {"parentRef": parent}});
        post(&server, path, object).await;
        let patched = patch(
            &server,
            &format!("{path}/{ip}"),
            json!({"metadata": {"annotations": {"patched": "true"}}}),
        )
        .await;
        assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
        let mine = format!("{path}?labelSelector=type%3D{label}");
        assert_eq!(count(&server, &mine).await, 1);
        let (code, _) = server.send("DELETE", &mine, None).await;
        assert_eq!((code, count(&server, &mine).await), (200, 0));
    }
}

#[tokio::test]
async fn services_get_addresses_of_ranges_that_are_added() {
    let server = TestServer::start().await;
    let services = "/api/v1/namespaces/default/services";
    let wanted = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.66.0.5", "ports": [{"port": 80}]}});
    let (code, body) = server.send("POST", services, Some(wanted("early"))).await;
    let message =
        "the provided IP (10.66.0.5) is not in the valid range. The range of valid IPs is 10.43.0.0/16";
    assert!(code == 422 && body["message"].as_str().unwrap().contains(message), "{body}");
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    post(&server, ranges, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.66.0.0/24"]}})).await;
    let made = post(&server, services, wanted("web")).await;
    assert_eq!(made["spec"]["clusterIP"], "10.66.0.5");
    let (code, _) = server.send("POST", services, Some(wanted("again"))).await;
    assert_eq!(code, 422, "an address is given once");
    let (code, body) = server.send("DELETE", &format!("{ranges}/more"), None).await;
    assert_eq!(code, 200, "{body}");
    server.send("DELETE", &format!("{services}/web"), None).await;
    until(async || {
        (server.send("POST", &format!("{services}?dryRun=All"), Some(wanted("late"))).await.0 == 422)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn service_accounts_discover_the_issuer_of_their_tokens() {
    let listening = TestServer::listening().await;
    let server = &listening.server;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(server, accounts, json!({"metadata": {"name": "e2e"}})).await;
    let order = json!({"spec": {"audiences": ["oidc-discovery-test"]}});
    let token = post(server, &format!("{accounts}/e2e/token"), order).await["status"]["token"].clone();
    let part = |i: usize| -> Value {
        let part = token.as_str().unwrap().split('.').nth(i).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let (head, claims) = (part(0), part(1));
    assert_eq!(
        (&claims["aud"], &claims["sub"]),
        (&json!(["oidc-discovery-test"]), &json!("system:serviceaccount:default:e2e"))
    );
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    let account = "system:serviceaccount:default:e2e";
    let get = async |path: &str| server.send_as(account, &groups, "GET", path, None).await;
    let (code, document) = get("/.well-known/openid-configuration").await;
    assert_eq!((code, &document["issuer"]), (200, &claims["iss"]), "{document}");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!([head["alg"]]));
    let keys = document["jwks_uri"].as_str().unwrap();
    assert_eq!(keys, format!("{}/openid/v1/jwks", claims["iss"].as_str().unwrap()));
    let (code, keys) = get("/openid/v1/jwks").await;
    assert!(
        code == 200 && keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == head["kid"]),
        "{keys}"
    );
    listening.stop().await;
}
