//! Version 2 and systemd are checked against directories; version 1 also against the kernel, when run as root.

use super::*;
use crate::host::processes::RealProcesses;

fn over(hierarchy: Hierarchy, driver: Driver) -> RealCgroups {
    RealCgroups {
        processes: Arc::new(RealProcesses::new(Vec::new())),
        driver,
        told: OnceLock::new(),
        hierarchy,
        others: Vec::new(),
    }
}

fn v2(root: &Path) -> RealCgroups {
    fs::write(root.join("cgroup.controllers"), "cpu memory pids rdma\n").unwrap();
    over(Hierarchy::V2(root.to_owned()), Driver::Cgroupfs)
}

const LIMITS: Limits = Limits {
    cpu_shares: Some(512),
    cpu_quota: Some(50_000),
    cpu_period: None,
    memory: Some(1 << 20),
    pids: Some(-1),
};

#[test]
fn hybrid_layouts_use_the_controllers_of_version_1() {
    let text = "\
1 0 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd
3 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    let mounts = parse_mountinfo(text);
    let cpu = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
    let expected = [("cpu".to_owned(), cpu.clone()), ("cpuacct".to_owned(), cpu)];
    let found = hierarchy(&mounts);
    assert_eq!(found, Hierarchy::V1(expected.into()));
    let others = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    assert_eq!(without_controllers(&mounts, &found), others);
    let unified: Vec<_> = mounts.into_iter().filter(|mount| mount.fstype == "cgroup2").collect();
    assert_eq!(hierarchy(&unified), Hierarchy::V2("/sys/fs/cgroup/unified".into()));
}

#[test]
fn limits_are_written_in_the_words_of_each_version() {
    let values =
        |version| limit_files(version, &LIMITS).into_iter().map(|(_, file, value)| format!("{file}={value}"));
    assert_eq!(
        values(Version::V1).collect::<Vec<_>>(),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=1048576",
            "pids.max=max"
        ]
    );
    assert_eq!(
        values(Version::V2).collect::<Vec<_>>(),
        ["cpu.weight=20", "cpu.max=50000 100000", "memory.max=1048576", "pids.max=max"]
    );
    for (shares, weight) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(weight_from_shares(shares), weight, "{shares}");
    }
}

#[tokio::test]
async fn version_2_passes_controllers_down_and_reads_usage() {
    let dir = tempfile::tempdir().unwrap();
    let cgroups = v2(dir.path());
    let pod = CgroupPath::parse("/kubepods/pod1");
    cgroups.ensure(&pod, &LIMITS).await.unwrap();
    let enabled = fs::read_to_string(dir.path().join("kubepods/cgroup.subtree_control")).unwrap();
    assert_eq!(enabled, "+cpu +memory +pids");
    assert_eq!(cgroups.children(&CgroupPath::parse("kubepods")).unwrap(), std::slice::from_ref(&pod));
    let own = dir.path().join("kubepods/pod1");
    assert_eq!(fs::read_to_string(own.join("memory.max")).unwrap(), "1048576");
    fs::write(own.join("cpu.stat"), "usage_usec 5\nuser_usec 3\n").unwrap();
    fs::write(own.join("memory.current"), "100\n").unwrap();
    fs::write(own.join("memory.stat"), "anon 60\nfile 40\ninactive_file 30\npgfault 7\npgmajfault 1\n")
        .unwrap();
    fs::write(own.join("pids.current"), "3\n").unwrap();
    let expected = Usage {
        cpu: 5000,
        memory: 100,
        working_set: 70,
        rss: 60,
        page_faults: 7,
        major_page_faults: 1,
        pids: 3,
    };
    assert_eq!(cgroups.usage(&pod).unwrap(), expected);
}

#[tokio::test]
async fn processes_below_count_and_removal_is_idempotent() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("memory");
    let cgroups = over(Hierarchy::V1([("memory".to_owned(), root.clone())].into()), Driver::Cgroupfs);
    let pods = CgroupPath::parse("kubepods");
    fs::create_dir_all(root.join("kubepods/pod1")).unwrap();
    fs::write(root.join("kubepods/pod1/cgroup.procs"), "7\n5\n").unwrap();
    assert_eq!(cgroups.processes(&pods).unwrap(), [5, 7]);
    fs::remove_file(root.join("kubepods/pod1/cgroup.procs")).unwrap();
    for _ in 0..2 {
        cgroups.remove(&pods).await.unwrap();
    }
    assert!(!root.join("kubepods").exists());
    assert!(cgroups.children(&pods).unwrap().is_empty());
}

#[tokio::test]
async fn what_the_runtime_made_in_other_hierarchies_is_removed_too() {
    let dir = tempfile::tempdir().unwrap();
    let [memory, other] = ["memory", "systemd"].map(|name| dir.path().join(name));
    let mut cgroups = over(Hierarchy::V1([("memory".to_owned(), memory)].into()), Driver::Cgroupfs);
    cgroups.others.push(other.clone());
    fs::create_dir_all(other.join("kubepods/pod1/container")).unwrap();
    cgroups.remove(&CgroupPath::parse("/kubepods/pod1")).await.unwrap();
    assert!(other.join("kubepods").exists() && !other.join("kubepods/pod1").exists());
}

#[tokio::test]
async fn the_kernel_takes_our_limits() {
    let cgroups = RealCgroups::detect(Arc::new(RealProcesses::new(Vec::new())));
    if !nix::unistd::geteuid().is_root() || cgroups.driver() == Driver::Systemd {
        println!("skipped: needs root on a machine without systemd");
        return;
    }
    let top = CgroupPath::root().child(&format!("kube-lite-test-{}", std::process::id()));
    let pod = top.child("pod1");
    cgroups.ensure(&pod, &Limits { memory: Some(64 << 20), ..LIMITS }).await.unwrap();
    let usage = cgroups.usage(&pod).unwrap();
    assert_eq!((usage.pids, usage.working_set), (0, usage.memory));
    let file = if cgroups.version() == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    assert_eq!(cgroups.read("memory", &pod, file).unwrap().trim(), (64 << 20).to_string());
    cgroups.remove(&top).await.unwrap();
    assert!(cgroups.usage(&pod).is_err());
}
