//! The fakes must behave like the machine, or tests built on them prove nothing.

use std::path::Path;
use std::time::Duration;

use super::FakeHost;
use crate::host::cgroups::{CgroupPath, Limits};
use crate::host::firewall::Family;
use crate::host::mounts::{MountKind, unmount_below};
use crate::host::netlink::Route;
use crate::host::processes::{Command, Output, ProcessError, Signal, run};

#[tokio::test]
async fn programs_must_be_installed_and_answer_as_told() {
    let fake = FakeHost::default();
    let processes = fake.host().processes;
    let command = Command::new("conntrack", ["-L"]);
    let missing = processes.output(command.clone(), Duration::MAX).await.unwrap_err();
    assert!(matches!(missing, ProcessError::NotFound { .. }));
    fake.processes
        .answer("conntrack", |command| Output { code: command.args.len() as i32, ..Default::default() });
    let failed = run(processes.as_ref(), command.clone(), Duration::MAX).await.unwrap_err();
    assert!(matches!(failed, ProcessError::Failed { code: 1, .. }));
    assert_eq!(fake.processes.ran(), [command]);
}

#[tokio::test]
async fn daemons_end_when_signalled_and_can_be_adopted_before() {
    let fake = FakeHost::default();
    fake.processes.install("containerd");
    let processes = fake.host().processes;
    let mut daemon = processes.spawn(&Command::new("containerd", [""; 0]), Path::new("/log")).unwrap();
    let mut adopted = processes.adopt(daemon.id()).unwrap();
    assert_eq!(fake.processes.running(), [daemon.id()]);
    processes.signal(daemon.id(), Signal::Kill).unwrap();
    assert_eq!((daemon.wait().await, adopted.wait().await), (Some(137), Some(137)));
    assert!(processes.adopt(daemon.id()).is_none() && processes.list().is_empty());
}

#[test]
fn mounts_stack_and_everything_below_a_directory_can_go() {
    let fake = FakeHost::default();
    let mounts = fake.host().mounts;
    let tmpfs = MountKind::Tmpfs { size: None, mode: 0o777 };
    for target in ["/pods/1/a", "/pods/1/a/b", "/pods/2"] {
        mounts.mount(Path::new(target), &tmpfs).unwrap();
    }
    assert_eq!(fake.mounts.at(Path::new("/pods/1/a")), Some(tmpfs));
    unmount_below(mounts.as_ref(), Path::new("/pods/1")).unwrap();
    assert_eq!(fake.mounts.targets(), [Path::new("/pods/2")]);
    mounts.unmount(Path::new("/nothing"), false).unwrap();
}

#[tokio::test]
async fn cgroups_have_ancestors_children_and_limits_that_add_up() {
    let fake = FakeHost::default();
    let cgroups = fake.host().cgroups;
    let pods = CgroupPath::parse("/kubepods");
    let pod = pods.child("burstable").child("pod1");
    cgroups.ensure(&pod, &Limits { memory: Some(5), ..Default::default() }).await.unwrap();
    cgroups.ensure(&pod, &Limits { pids: Some(7), ..Default::default() }).await.unwrap();
    let limits = fake.cgroups.limits(&pod).unwrap();
    assert_eq!((limits.memory, limits.pids), (Some(5), Some(7)));
    assert_eq!(cgroups.children(&pods).unwrap(), [pods.child("burstable")]);
    fake.cgroups.set_processes(&pod, vec![3]);
    assert_eq!(cgroups.processes(&pods).unwrap(), [3]);
    cgroups.remove(&pods).await.unwrap();
    assert!(cgroups.usage(&pod).is_err());
}

#[tokio::test]
async fn links_take_their_addresses_and_routes_with_them() {
    let fake = FakeHost::default();
    let netlink = fake.host().netlink;
    let link = fake.netlink.add_link("eth0", None);
    let ip = "192.168.0.2".parse().unwrap();
    for _ in 0..2 {
        netlink.add_address(link, ip, 24).await.unwrap();
    }
    assert_eq!(netlink.addresses().await.unwrap().len(), 1);
    let route =
        Route { destination: "10.42.1.0".parse().unwrap(), prefix: 24, gateway: Some(ip), link, metric: 0 };
    for gateway in [None, Some(ip)] {
        netlink.replace_route(Route { gateway, ..route }).await.unwrap();
    }
    assert_eq!(netlink.routes().await.unwrap(), [route]);
    netlink.delete_link("eth0").await.unwrap();
    assert!(netlink.addresses().await.unwrap().is_empty() && netlink.routes().await.unwrap().is_empty());
}

#[tokio::test]
async fn rules_are_applied_as_iptables_restore_does() {
    let fake = FakeHost::default();
    let firewall = fake.host().firewall;
    let first = "*nat\n:KUBE-X - [0:0]\n-A KUBE-X -j ACCEPT\n-I POSTROUTING 1 -j KUBE-X\nCOMMIT\n";
    firewall.restore(Family::V4, first).await.unwrap();
    firewall.restore(Family::V4, "*nat\n:KUBE-X - [0:0]\n-A KUBE-X -j RETURN\nCOMMIT\n").await.unwrap();
    assert_eq!(fake.firewall.chain("nat", "KUBE-X").unwrap(), ["-j RETURN"]);
    assert_eq!(fake.firewall.chain("nat", "POSTROUTING").unwrap(), ["-j KUBE-X"]);
    let saved = firewall.save(Family::V4, "nat").await.unwrap();
    assert!(saved.contains(":KUBE-X - [0:0]\n") && saved.contains("-A POSTROUTING -j KUBE-X\n"), "{saved}");
    for wrong in [
        "*nat\n-A KUBE-Y -j ACCEPT\nCOMMIT\n",
        "*nat\n-A KUBE-X -j KUBE-Z\nCOMMIT\n",
        "-A KUBE-X -j ACCEPT\n",
    ] {
        let error = firewall.restore(Family::V4, wrong).await.unwrap_err();
        assert!(error.to_string().starts_with("apply firewall rules (refused: -A"), "{error}");
    }
    assert_eq!(fake.firewall.chain("nat", "KUBE-X").unwrap(), ["-j RETURN"]);
}
