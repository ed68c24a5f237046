//! What users see of the command line: the merge order, and one-line errors.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::*;

fn words(line: &[&str]) -> Vec<OsString> {
    std::iter::once("kube-lite").chain(line.iter().copied()).map(OsString::from).collect()
}

fn server_config(line: &[&str]) -> anyhow::Result<ServerConfig> {
    match parse(words(line))? {
        Parsed::Run(cli, _) => match cli.command {
            Subcommands::Server(config) => Ok(config::check_server(*config)?),
            other => anyhow::bail!("not a server: {other:?}"),
        },
        Parsed::Print(text) => anyhow::bail!("printed {text}"),
    }
}

fn with_file(text: &str, check: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, text).unwrap();
    check(&path);
}

#[test]
fn definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn defaults_are_those_of_k3s() {
    with_file("", |file| {
        let config = server_config(&["server", "-c", file.to_str().unwrap()]).unwrap();
        assert_eq!(config.https_listen_port, 6443);
        assert_eq!(config.cluster_cidr.to_string(), "10.42.0.0/16");
        assert_eq!(config.service_cidr.to_string(), "10.43.0.0/16");
        assert_eq!(config.dns_address().to_string(), "10.43.0.10");
        assert_eq!(config.cluster_domain, "cluster.local");
        assert_eq!(config.write_kubeconfig_mode, 0o600);
        assert_eq!(config.node.data_dir, Path::new("/var/lib/kube-lite"));
    });
}

#[test]
fn file_fills_what_flags_leave_open() {
    let text = "https-listen-port: 7443\nnode-name: from-file\ntls-san:\n- a.example\n- b.example\ndisable-agent: true\n";
    with_file(text, |file| {
        let file = file.to_str().unwrap();
        let config = server_config(&["server", "-c", file, "--node-name", "from-flag"]).unwrap();
        assert_eq!(config.https_listen_port, 7443);
        assert_eq!(config.node.node_name.as_deref(), Some("from-flag"));
        assert_eq!(config.tls_san, ["a.example", "b.example"]);
        assert!(config.disable_agent);
        let config = server_config(&["server", "-c", file, "--tls-san", "c.example"]).unwrap();
        assert_eq!(config.tls_san, ["c.example"], "a list on the command line replaces the file's");
    });
}

#[test]
fn later_drop_in_wins_and_plus_appends() {
    with_file("node-label: [a=1]\nnode-name: first\n", |file| {
        let dir = format!("{}.d", file.display());
        fs::create_dir(&dir).unwrap();
        fs::write(format!("{dir}/10.yaml"), "node-label+: b=2\nnode-name: second\n").unwrap();
        fs::write(format!("{dir}/20.txt"), "not: read\n").unwrap();
        let config = server_config(&["server", "-c", file.to_str().unwrap()]).unwrap();
        assert_eq!(config.node.node_label, ["a=1", "b=2"]);
        assert_eq!(config.node.node_name.as_deref(), Some("second"));
    });
}

#[test]
fn keys_of_the_other_subcommand_are_skipped() {
    with_file("server: https://other:6443\n", |file| {
        server_config(&["server", "-c", file.to_str().unwrap()]).unwrap();
    });
}

#[test]
fn flags_of_k3s_without_meaning_are_taken() {
    with_file("flannel-backend: vxlan\ndisable-network-policy: true\n", |file| {
        let file = file.to_str().unwrap();
        server_config(&["server", "-c", file, "--kubelet-arg", "v=2", "--disable", "traefik"]).unwrap();
    });
}

#[test]
fn mistakes_are_one_line_that_names_the_flag() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("", &["server", "--no-such-flag"], "--no-such-flag"),
        ("", &["server", "--https-listen-port", "x"], "--https-listen-port"),
        ("", &["server", "--cluster-cidr", "10.42.0.1/16"], "not the first address"),
        ("", &["server", "--service-cidr", "10.42.0.0/20"], "overlaps"),
        ("", &["server", "--cluster-dns", "10.1.0.10"], "outside --service-cidr"),
        ("", &["server", "--disable", "nothing"], "--disable \"nothing\""),
        ("", &["server", "--datastore-endpoint", "mysql://x"], "only sqlite://"),
        (
            "",
            &["server", "--datastore-endpoint", "https://a:1", "--datastore-certfile", "c"],
            "--datastore-keyfile",
        ),
        ("", &["server", "--datastore-quota-backend-bytes", "1000"], "16777216 or more"),
        ("", &["server", "--snapshot-schedule-cron", "often"], "five fields"),
        ("", &["server", "--node-taint", "a=b"], "KEY[=VALUE]:EFFECT"),
        ("", &["server", "--node-label", "a"], "KEY=VALUE"),
        ("", &["server", "--node-name", "Upper"], "--node-name \"Upper\""),
        ("", &["server", "--write-kubeconfig-mode", "9"], "octal"),
        ("no-such-key: 1\n", &["server"], "--no-such-key"),
        ("- a\n", &["server"], "map of flag names"),
        ("node-name: {a: b}\n", &["server"], "node-name"),
        ("disable-agent: maybe\n", &["server"], "neither true nor false"),
        ("https-listen-port: many\n", &["server"], "--https-listen-port"),
        ("", &["serve"], "serve"),
    ];
    for (text, line, expected) in cases {
        with_file(text, |file| {
            let mut line = line.to_vec();
            if line[0] == "server" {
                line.extend(["-c", file.to_str().unwrap()]);
            }
            let error = format!("{:#}", server_config(&line).unwrap_err());
            assert!(error.contains(expected), "{line:?}: {error}");
            assert!(!error.contains('\n'), "{line:?}: more than one line: {error}");
        });
    }
}

#[test]
fn named_file_must_exist() {
    let error = format!("{:#}", server_config(&["server", "-c", "/nonexistent/config.yaml"]).unwrap_err());
    assert!(error.contains("/nonexistent/config.yaml"), "{error}");
}

#[test]
fn agent_needs_a_server_and_a_token() {
    for (line, expected) in [
        (&["agent"][..], "--server is missing"),
        (&["agent", "--server", "https://a:6443"], "--token is missing"),
        (&["agent", "--server", "a:6443", "--token", "t"], "https://"),
    ] {
        with_file("", |file| {
            let mut line = line.to_vec();
            line.extend(["-c", file.to_str().unwrap()]);
            let Parsed::Run(cli, _) = parse(words(&line)).unwrap() else { panic!("nothing to run") };
            let Subcommands::Agent(config) = cli.command else { panic!("not an agent") };
            let error = config::check_agent(*config).unwrap_err().to_string();
            assert!(error.contains(expected), "{line:?}: {error}");
        });
    }
}

#[test]
fn no_subcommand_says_which_there_are() {
    let error = server_config(&[]).unwrap_err().to_string();
    assert!(error.contains("kube-lite server"), "{error}");
}

#[test]
fn snapshots_read_the_servers_file_and_take_flags_anywhere() {
    let text = "datastore-endpoint: https://a:1\nnode-label: [a=b]\nsnapshot-retention: 3\n";
    with_file(text, |file| {
        let file = file.to_str().unwrap();
        for line in [
            ["snapshot", "-c", file, "--snapshot-name", "x", "save"],
            ["snapshot", "-c", file, "save", "--snapshot-name", "x"],
        ] {
            let Parsed::Run(cli, _) = parse(words(&line)).unwrap() else { panic!("nothing to run") };
            let text = format!("{:?}", cli.command);
            for expected in ["https://a:1", "snapshot_name: \"x\"", "snapshot_retention: 3", "Save"] {
                assert!(text.contains(expected), "{expected} in {text}");
            }
        }
    });
}
