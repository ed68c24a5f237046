//! Several `kube-lite server` processes on one etcd are one cluster: certificates, tokens, and what is handed out once.

use std::collections::HashSet;

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;

use crate::members::Members;
use crate::process::{Process, client};

const TOKEN: &str = "a-secret-of-the-test";

async fn cluster() -> (Members, Process, Process) {
    let etcd = Members::start(1).await;
    let endpoints = etcd.endpoints();
    let arguments = ["--datastore-endpoint", &endpoints, "--token", TOKEN];
    // Both begin on the empty datastore at the same time.
    let (one, other) = tokio::join!(Process::start(&arguments), Process::start(&arguments));
    (etcd, one, other)
}

async fn who_am_i(client: Client) -> String {
    let review: Api<SelfSubjectReview> = Api::all(client);
    let review = review.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}

/// The other server, with the credentials of a kubeconfig.
fn at(mut kubeconfig: Kubeconfig, server: &Process) -> Kubeconfig {
    kubeconfig.clusters[0].cluster.as_mut().unwrap().server = Some(server.url());
    kubeconfig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_accept_each_others_certificates_and_tokens() {
    let (etcd, one, other) = cluster().await;
    // The administrator of one is the administrator of the other, who trusts the same authority.
    assert_eq!(who_am_i(client(at(one.kubeconfig(), &other)).await).await, "system:admin");
    let accounts: Api<ServiceAccount> = Api::namespaced(one.admin().await, "default");
    let account = serde_json::from_value(json!({ "metadata": { "name": "robot" } })).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let token =
        accounts.create_token_request("robot", &PostParams::default(), &TokenRequest::default()).await;
    let token = token.unwrap().status.unwrap().token;
    let mut kubeconfig = at(one.kubeconfig(), &other);
    let user = json!({ "token": token });
    kubeconfig.auth_infos[0].auth_info = Some(serde_json::from_value(user).unwrap());
    assert_eq!(who_am_i(client(kubeconfig).await).await, "system:serviceaccount:default:robot");
    // What is written through one is read through the other.
    let config = serde_json::from_value(json!({ "metadata": { "name": "c" } })).unwrap();
    let write: Api<ConfigMap> = Api::namespaced(other.admin().await, "default");
    write.create(&PostParams::default(), &config).await.unwrap();
    Api::<ConfigMap>::namespaced(one.admin().await, "default").get("c").await.unwrap();
    // One without the token does not begin a cluster of its own beside it.
    for token in [None, Some("another-token")] {
        let mut arguments = vec!["--datastore-endpoint".to_owned(), etcd.endpoints()];
        arguments.extend(token.into_iter().flat_map(|token| ["--token".to_owned(), token.to_owned()]));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let told = Process::refused(&arguments).await;
        assert!(told.contains("a cluster with another token") && told.contains("--token"), "{told}");
    }
}

fn service(name: &str, port: Option<u16>) -> Service {
    let port = json!({ "port": 80, "nodePort": port });
    let spec = json!({ "type": "NodePort", "ports": [port] });
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn port(service: &Service) -> i32 {
    service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_never_hand_out_the_same_address_or_port() {
    let (_etcd, one, other) = cluster().await;
    let apis: Vec<Api<Service>> =
        [one.admin().await, other.admin().await].map(|client| Api::namespaced(client, "default")).into();
    let create =
        async |i: usize, service: Service| apis[i % 2].create(&PostParams::default(), &service).await;
    let made = join_all((0..200).map(|i| create(i, service(&format!("s{i}"), None)))).await;
    let made: Vec<Service> = made.into_iter().map(Result::unwrap).collect();
    let ips: HashSet<_> = made.iter().map(|s| s.spec.clone().unwrap().cluster_ip.unwrap()).collect();
    let ports: HashSet<_> = made.iter().map(port).collect();
    assert_eq!((ips.len(), ports.len()), (200, 200));
    // A chosen port goes to one of those who ask for it through different servers at the same time.
    let free = (30000..32768).find(|port| !ports.contains(port)).unwrap() as u16;
    let race = join_all((0..8).map(|i| create(i, service(&format!("race{i}"), Some(free))))).await;
    assert_eq!(race.iter().filter(|made| made.is_ok()).count(), 1);
    let refused = race.iter().find_map(|made| made.as_ref().err()).unwrap().to_string();
    assert!(refused.contains("provided port is already allocated"), "{refused}");
    // What is given back through one can be had through the other.
    let winner = race.into_iter().find_map(Result::ok).unwrap();
    for (i, gone) in [&made[0], &winner].into_iter().enumerate() {
        let name = gone.metadata.name.as_deref().unwrap();
        apis[0].delete(name, &DeleteParams::default()).await.unwrap();
        create(1, service(&format!("again{i}"), Some(port(gone) as u16))).await.unwrap();
    }
}
