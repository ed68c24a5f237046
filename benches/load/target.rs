//! The server that is measured: one of our own on an empty directory, one that a kubeconfig names, or the floor.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A server and how to reach it.
pub struct Target {
    pub kubeconfig: PathBuf,
    /// The processes whose processor time counts.
    pub pids: Vec<u32>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Own {
    /// `kube-lite server` alone: no node, no controllers, no scheduler.
    fn spawn(directory: &Path, port: u16, arguments: &[String]) -> Child {
        let log = std::fs::File::create(directory.join("log")).expect("a log");
        Command::new(env!("CARGO_BIN_EXE_kube-lite"))
            .args(["server", "--disable-agent", "--disable-scheduler", "--disable-controller-manager"])
            .args(["--bind-address", "127.0.0.1", "--https-listen-port", &port.to_string()])
            .arg("--config")
            .arg(directory.join("config.yaml"))
            .arg("--data-dir")
            .arg(directory.join("data"))
            .arg("--write-kubeconfig")
            .arg(directory.join("kubeconfig"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("kube-lite starts")
    }

    /// Waits until it takes connections, which it does once it answers.
    fn wait(&self) {
        let (begin, kubeconfig) = (Instant::now(), self.directory.path().join("kubeconfig"));
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() || !kubeconfig.exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "kube-lite does not answer");
            std::thread::yield_now();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Target {
    /// A server that somebody else runs.
    pub fn other(kubeconfig: &str, pids: &str) -> Self {
        let pids = pids.split(',').filter_map(|pid| pid.trim().parse().ok()).collect();
        Target { kubeconfig: kubeconfig.into(), pids, own: None }
    }

    /// `kube-lite server` alone: no node, no controllers, no scheduler.
    pub fn kube_lite(arguments: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(directory.path().join("config.yaml"), "").expect("a configuration file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let child = Own::spawn(directory.path(), port, arguments);
        let pids = vec![child.id()];
        let own = Own { child, directory, port, arguments: arguments.to_vec() };
        own.wait();
        Target { kubeconfig, pids, own: Some(own) }
    }

    /// `kill -9`, then a start on the same data.
    pub fn restart(&mut self) {
        let own = self.own.as_mut().expect("a server of our own");
        own.child.kill().expect("a kill");
        own.child.wait().expect("an end");
        own.child = Own::spawn(own.directory.path(), own.port, &own.arguments);
        self.pids = vec![own.child.id()];
    }

    /// Waits until it takes connections.
    pub fn wait(&self) {
        self.own.as_ref().expect("a server of our own").wait();
    }

    /// Bytes of the embedded datastore's file, and of its write-ahead log.
    pub fn database(&self) -> (u64, u64) {
        let directory =
            self.own.as_ref().expect("a server of our own").directory.path().join("data/server/db");
        let size = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
        (size("state.db"), size("state.db-wal"))
    }

    /// Bytes that the server has had written to disk so far.
    pub fn written(&self) -> u64 {
        let bytes = |pid: &u32| {
            let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.pids.iter().map(bytes).sum()
    }

    /// Processor time that the server has used so far.
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = self.pids.iter().map(|pid| ticks(*pid)).sum();
        // The kernel counts 100 ticks a second for every user of `/proc`.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory of the server, in MiB.
    pub fn memory(&self) -> f64 {
        self.resident("VmRSS:")
    }

    /// Resident memory of the server without what belongs to files, in MiB.
    pub fn anonymous(&self) -> f64 {
        self.resident("RssAnon:")
    }

    fn resident(&self, kind: &str) -> f64 {
        let kilobytes = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or("0");
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0)
        };
        self.pids.iter().map(kilobytes).sum::<f64>() / 1024.0
    }
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th words after it.
    let words = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Address and TLS settings of a kubeconfig's current context; certificates may be in it or beside it.
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Endpoint {
    pub fn read(path: &Path) -> Self {
        let config = Kubeconfig::read_from(path).expect("a kubeconfig");
        let cluster = config.clusters.iter().find_map(|named| named.cluster.clone()).expect("a cluster");
        let user = config.auth_infos.iter().find_map(|named| named.auth_info.clone()).expect("a user");
        let url: http::Uri = cluster.server.expect("a server").parse().expect("a URL");
        let pem = |data: Option<String>, file: Option<String>| match (data, file) {
            (Some(data), _) => STANDARD.decode(data).expect("base64"),
            (None, Some(file)) => std::fs::read(file).expect("a file of certificates"),
            (None, None) => panic!("the kubeconfig has no certificates"),
        };
        let authority = pem(cluster.certificate_authority_data, cluster.certificate_authority);
        let chain = pem(user.client_certificate_data.clone(), user.client_certificate.clone());
        // kube keeps the key from being printed; in the file's own form it is text.
        let plain = serde_json::to_value(&user).expect("a user");
        let key = pem(plain["client-key-data"].as_str().map(str::to_owned), user.client_key.clone());
        Endpoint {
            host: url.host().expect("a host").trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(443),
            tls: client_tls(&authority, &chain, &key),
        }
    }
}

fn client_tls(authority: &[u8], chain: &[u8], key: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let chain = CertificateDer::pem_slice_iter(chain).map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a client certificate");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(tls)
}
