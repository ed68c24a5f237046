//! What machine this is: kernel, distribution, identities, processors, memory.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::sys::utsname::uname;

use super::cpus::{self, Processor};

/// What does not change while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineInfo {
    /// Host name as the kernel knows it.
    pub hostname: String,
    /// Kernel release, for example `6.1.0-13-amd64`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// Architecture in Go's words (`amd64`, `arm64`), as Kubernetes labels nodes.
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// UUID of the hardware or virtual machine, or the machine id where there is none.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// Logical processors.
    pub processors: usize,
    /// Bytes of main memory.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Huge pages: size of a page in bytes, and how many there are.
    pub huge_pages: Vec<(u64, u64)>,
}

/// How many processes and threads there are, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessIds {
    /// The kernel's limit.
    pub most: u64,
    /// In use.
    pub used: u64,
}

/// Questions about the machine.
pub trait Machine: Send + Sync {
    /// Reads what the machine is.
    fn info(&self) -> MachineInfo;
    /// Bytes of memory that can be had without swapping.
    fn memory_available(&self) -> u64;
    /// How many processes there may be, and are.
    fn process_ids(&self) -> ProcessIds;
    /// Whether AppArmor confines processes here.
    fn app_armor(&self) -> bool;
    /// The processors that are switched on, by their numbers.
    fn processors(&self) -> Vec<Processor>;
}

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct RealMachine;

impl Machine for RealMachine {
    fn info(&self) -> MachineInfo {
        let names = uname().ok();
        let name = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            names.as_ref().map(|names| of(names).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let meminfo = text("/proc/meminfo");
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        MachineInfo {
            hostname: name(|names| names.nodename()),
            kernel_version: name(|names| names.release()),
            os_image: pretty_name(&text("/etc/os-release")).unwrap_or_else(|| "Linux".to_owned()),
            architecture: architecture(&name(|names| names.machine())).to_owned(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
            swap: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or(0),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }

    fn memory_available(&self) -> u64 {
        meminfo_bytes(&text("/proc/meminfo"), "MemAvailable").unwrap_or(0)
    }

    fn process_ids(&self) -> ProcessIds {
        let limit = |path| line(path).parse().unwrap_or(u64::MAX);
        let most = limit("/proc/sys/kernel/pid_max").min(limit("/proc/sys/kernel/threads-max"));
        // Fourth field of loadavg: running/all tasks.
        let tasks = line("/proc/loadavg").split_whitespace().nth(3).and_then(|field| {
            let (_, all) = field.split_once('/')?;
            all.parse().ok()
        });
        ProcessIds { most, used: tasks.unwrap_or(0) }
    }

    fn app_armor(&self) -> bool {
        Path::new("/sys/kernel/security/apparmor").is_dir()
            && line("/sys/module/apparmor/parameters/enabled").starts_with('Y')
    }

    fn processors(&self) -> Vec<Processor> {
        cpus::online()
    }
}

/// The pools of huge pages, by size.
fn huge_pages(directory: &Path) -> Vec<(u64, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut pools: Vec<(u64, u64)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((kib * 1024, count))
        })
        .collect();
    pools.sort_unstable();
    pools
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> String {
    text(path).trim().to_owned()
}

fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(|c| c == '"' || c == '\'').to_owned())
}

fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" | "i386" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}

/// A machine with figures given by a test.
#[derive(Debug)]
pub struct FakeMachine {
    info: MachineInfo,
    memory_available: Mutex<u64>,
}

impl Default for FakeMachine {
    fn default() -> Self {
        let info = MachineInfo {
            hostname: "fake".to_owned(),
            kernel_version: "6.1.0".to_owned(),
            os_image: "Fake Linux".to_owned(),
            architecture: "amd64".to_owned(),
            machine_id: "machine".to_owned(),
            system_uuid: "system".to_owned(),
            boot_id: "boot".to_owned(),
            processors: 4,
            memory: 8 << 30,
            swap: 0,
            huge_pages: vec![(2 << 20, 0)],
        };
        Self { info, memory_available: Mutex::new(6 << 30) }
    }
}

impl FakeMachine {
    /// Sets how much memory is available.
    pub fn set_memory_available(&self, bytes: u64) {
        *self.memory_available.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }
}

impl Machine for FakeMachine {
    fn info(&self) -> MachineInfo {
        self.info.clone()
    }

    fn memory_available(&self) -> u64 {
        *self.memory_available.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process_ids(&self) -> ProcessIds {
        ProcessIds { most: 32768, used: 100 }
    }

    fn app_armor(&self) -> bool {
        false
    }

    /// Two threads to a core.
    fn processors(&self) -> Vec<Processor> {
        (0..4).map(|id| Processor { id, core: id / 2, socket: 0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_processors_and_memory() {
        let info = RealMachine.info();
        assert!(!info.kernel_version.is_empty() && !info.boot_id.is_empty());
        assert!(info.processors > 0);
        let available = RealMachine.memory_available();
        assert!(available > 0 && available <= info.memory, "{available} of {}", info.memory);
        let ProcessIds { most, used: now } = RealMachine.process_ids();
        assert!(now > 0 && now < most, "{now} of {most}");
    }

    #[test]
    fn pools_of_huge_pages_are_counted_by_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-1048576kB", 2), ("hugepages-2048kB", 7)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nr_hugepages"), format!("{count}\n")).unwrap();
        }
        assert_eq!(huge_pages(dir.path()), [(2 << 20, 7), (1 << 30, 2)]);
        assert!(huge_pages(Path::new("/no/such/directory")).is_empty());
    }

    #[test]
    fn files_of_the_distribution_are_understood() {
        let meminfo = "MemTotal:       16 kB\nMemAvailable:    8 kB\nHugePages_Total:  0\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(8192));
        assert_eq!(meminfo_bytes(meminfo, "HugePages_Total"), None);
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"X 1\"\n").as_deref(), Some("X 1"));
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("riscv64"), "riscv64");
    }
}
