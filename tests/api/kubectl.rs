//! The real `kubectl`, current and old, against a server on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::server::{Listening, TestServer};

/// Where an old kubectl is, if there is one: `.ci/run` puts Debian's there.
const OLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/kubectl-old/usr/bin/kubectl");

/// A program and the server that it speaks to.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// Every kubectl of this host, with homes of their own.
    pub fn all(listening: &Listening) -> Vec<Self> {
        let programs =
            [PathBuf::from("/usr/bin/kubectl"), PathBuf::from("/usr/local/bin/kubectl"), PathBuf::from(OLD)];
        let kubeconfig = listening.kubeconfig();
        let present = programs.into_iter().filter(|path| Path::exists(path)).enumerate();
        let of = |(at, program)| {
            let home = listening.server.path().join(format!("home{at}"));
            Self { program, kubeconfig: kubeconfig.clone(), home }
        };
        let all: Vec<Self> = present.map(of).collect();
        assert!(!all.is_empty(), "no kubectl on this host");
        all
    }

    /// A process with these arguments, whose input and output are pipes.
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = Command::new(&self.program);
        // The path is for what kubectl itself runs: `diff`.
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// Runs it to the end: whether it succeeded, and all that it said.
    pub async fn words(&self, args: &[&str], stdin: &str) -> (bool, String) {
        let mut child = self.spawn(args);
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }

    /// [`Self::words`] of arguments without blanks.
    pub async fn run(&self, args: &str, stdin: &str) -> (bool, String) {
        self.words(&args.split(' ').collect::<Vec<_>>(), stdin).await
    }

    /// What it says when it succeeds.
    pub async fn ok(&self, args: &str, stdin: &str) -> String {
        let (success, text) = self.run(args, stdin).await;
        assert!(success, "{} {args}:\n{text}", self.program.display());
        text
    }
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: web
        image: registry.example/web:1
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata:
  name: hello
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// Every `kubectl create` that has a generator; they send protobuf.
async fn creators(kubectl: &Kubectl) {
    let made = [
        "clusterrole made --verb=get --resource=pods",
        "clusterrolebinding made --clusterrole=made --user=jane",
        "cronjob made --image=i:1 --schedule=@daily",
        "deployment made --image=i:1 --replicas=0 --port=80",
        "ingress made --rule=example.com/=made:80",
        "job made --image=i:1",
        "namespace made",
        "poddisruptionbudget made --selector=a=b --min-available=50%",
        "priorityclass made --value=5",
        "quota made --hard=pods=5",
        "role made --verb=get --resource=configmaps",
        "rolebinding made --role=made --serviceaccount=default:made",
        "secret generic made --from-literal=password=secret",
        "service nodeport made --tcp=80:8080",
        "serviceaccount made",
    ];
    let old = kubectl.program == Path::new(OLD);
    for what in made {
        let kind = what.split(' ').next().unwrap_or_default();
        if old && matches!(kind, "cronjob" | "poddisruptionbudget" | "namespace") {
            // It sends the first two in beta versions that are gone; the namespace of the one before is still ending.
            continue;
        }
        kubectl.ok(&format!("create {what}"), "").await;
        let kind = if kind == "poddisruptionbudget" { "pdb" } else { kind };
        assert_eq!(kubectl.ok(&format!("get {kind} made -o jsonpath={{.metadata.name}}"), "").await, "made");
    }
    assert_eq!(kubectl.ok("get deploy made -o jsonpath={.spec.replicas}", "").await, "0");
    assert_eq!(kubectl.ok("get service made -o jsonpath={.spec.ports[0].targetPort}", "").await, "8080");
    assert_eq!(kubectl.ok("get secret made -o jsonpath={.data.password}", "").await, "c2VjcmV0");
    // No controller makes it here; the kubectl before may have.
    let _account = kubectl.run("create serviceaccount default", "").await;
    let made = kubectl.ok("run made --image=i:1 --restart=Never --env=A=B", "").await;
    assert!(made.contains("pod/made created"), "{made}");
    for what in made_names() {
        kubectl.ok(&format!("delete --wait=false --ignore-not-found {what} made"), "").await;
    }
}

/// What [`creators`] leaves behind.
fn made_names() -> impl Iterator<Item = &'static str> {
    "clusterrole clusterrolebinding cronjob deployment ingress job pdb priorityclass quota role rolebinding secret \
     service serviceaccount namespace pod"
        .split_whitespace()
}

async fn tour(kubectl: &Kubectl) {
    assert!(kubectl.ok("version", "").await.contains("1.36"));
    assert!(kubectl.ok("api-resources", "").await.contains("deployments"));
    assert!(kubectl.ok("api-versions", "").await.contains("apps/v1"));
    kubectl.ok("apply -f -", DEPLOYMENT).await;
    let again = kubectl.ok("apply -f -", DEPLOYMENT).await;
    assert!(again.contains("deployment.apps/hello unchanged"), "{again}");
    let table = kubectl.ok("get deployments,services -o wide", "").await;
    assert!(
        table.contains("0/3") && table.contains("registry.example/web:1") && table.contains("ClusterIP"),
        "{table}"
    );
    assert!(kubectl.ok("get deploy hello -o yaml", "").await.contains("replicas: 3"));
    assert!(kubectl.ok("get deploy -o jsonpath={.items[*].metadata.name}", "").await.contains("hello"));
    kubectl.ok("scale deploy hello --replicas=5", "").await;
    assert_eq!(kubectl.ok("get deploy hello -o jsonpath={.spec.replicas}", "").await, "5");
    kubectl.ok("label deploy hello tier=web", "").await;
    assert!(kubectl.ok("get deploy -l tier=web -o name", "").await.contains("deployment.apps/hello"));
    kubectl.ok("patch deploy hello -p {\"spec\":{\"replicas\":2}}", "").await;
    kubectl.ok("create configmap settings --from-literal=a=b", "").await;
    assert!(kubectl.ok("describe configmap settings", "").await.contains("a:"));
    let review = r#"{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}"#;
    // A review has no patch, by which kubectl looks for checks of fields; it would look for it among custom resources.
    let allowed = "create --validate=false -f - -o jsonpath={.status.allowed}";
    assert_eq!(kubectl.ok(allowed, review).await, "true");
    assert_eq!(kubectl.ok(&format!("{allowed} --as=jane"), review).await, "false");
    let (_, missing) = kubectl.run("get pod nothing", "").await;
    assert!(missing.contains("Error from server (NotFound): pods \"nothing\" not found"), "{missing}");
    creators(kubectl).await;
    assert!(kubectl.ok("auth can-i delete nodes", "").await.starts_with("yes"));
    assert!(kubectl.run("auth can-i delete nodes --as=jane", "").await.1.starts_with("no"));
    assert!(kubectl.ok("auth can-i --list", "").await.contains("*.*"));
    kubectl.ok("delete deploy,svc hello", "").await;
    kubectl.ok("delete configmap settings", "").await;
    assert!(kubectl.ok("get deploy", "").await.contains("No resources found in default namespace."));
    assert!(kubectl.ok("cluster-info", "").await.contains("127.0.0.1"));
}

#[tokio::test]
async fn kubectl_of_any_age_works() {
    let listening = TestServer::listening().await;
    for kubectl in Kubectl::all(&listening) {
        tour(&kubectl).await;
    }
    listening.stop().await;
}
