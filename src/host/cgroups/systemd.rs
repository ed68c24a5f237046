//! Slices by way of systemd's D-Bus interface, spoken by `busctl`, which every systemd installation has.

use std::time::Duration;

use super::{CgroupError, Limits};
use crate::host::processes::{Command, Processes, run};

const LIMIT: Duration = Duration::from_secs(20);
const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// What systemd answers when the slice is there already.
const EXISTS: &str = "already";

/// Starts the slice if need be and sets its limits.
pub(super) async fn ensure(
    processes: &dyn Processes,
    slice: &str,
    limits: &Limits,
) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Systemd { slice: slice.to_owned(), source };
    match run(processes, Command::new("busctl", start(slice, limits)), LIMIT).await {
        Err(error) if error.to_string().contains(EXISTS) => {
            let properties = properties(limits);
            if properties.is_empty() {
                return Ok(());
            }
            run(processes, Command::new("busctl", update(slice, limits)), LIMIT)
                .await
                .map(drop)
                .map_err(failed)
        }
        other => other.map(drop).map_err(failed),
    }
}

/// Stops the slice; systemd then removes its directory.
pub(super) async fn remove(processes: &dyn Processes, slice: &str) -> Result<(), CgroupError> {
    let words = call("StopUnit", &["ss", slice, "replace"]);
    run(processes, Command::new("busctl", words), LIMIT)
        .await
        .map(drop)
        .map_err(|source| CgroupError::Systemd { slice: slice.to_owned(), source })
}

fn call(method: &str, arguments: &[&str]) -> Vec<String> {
    ["--system", "call", SERVICE, OBJECT, INTERFACE, method]
        .iter()
        .chain(arguments)
        .map(|word| (*word).to_owned())
        .collect()
}

/// Properties as `busctl` takes them: name, type, value.
fn properties(limits: &Limits) -> Vec<[String; 3]> {
    let mut all = Vec::new();
    let mut add = |name: &str, value: u64| all.push([name.to_owned(), "t".to_owned(), value.to_string()]);
    // -1 is no limit, which systemd writes as the largest number.
    let unlimited = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(shares) = limits.cpu_shares {
        add("CPUWeight", super::real::weight_from_shares(shares));
    }
    if let Some(quota) = limits.cpu_quota {
        let period = limits.cpu_period.unwrap_or(100_000);
        let per_second = u64::try_from(quota).map_or(u64::MAX, |quota| quota * 1_000_000 / period.max(1));
        add("CPUQuotaPerSecUSec", per_second);
    }
    if let Some(memory) = limits.memory {
        add("MemoryMax", unlimited(memory));
    }
    if let Some(pids) = limits.pids {
        add("TasksMax", unlimited(pids));
    }
    all
}

fn start(slice: &str, limits: &Limits) -> Vec<String> {
    let mut properties = properties(limits);
    let on = |name: &str| [name.to_owned(), "b".to_owned(), "true".to_owned()];
    properties.extend(["CPUAccounting", "MemoryAccounting", "TasksAccounting"].map(on));
    properties.push(["DefaultDependencies".to_owned(), "b".to_owned(), "false".to_owned()]);
    let mut words = call("StartTransientUnit", &["ssa(sv)a(sa(sv))", slice, "replace"]);
    words.push(properties.len().to_string());
    words.extend(properties.into_iter().flatten());
    words.push("0".to_owned());
    words
}

fn update(slice: &str, limits: &Limits) -> Vec<String> {
    let properties = properties(limits);
    let mut words = call("SetUnitProperties", &["sba(sv)", slice, "true"]);
    words.push(properties.len().to_string());
    words.extend(properties.into_iter().flatten());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_properties() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            memory: Some(-1),
            pids: Some(100),
            ..Default::default()
        };
        let words = update("a.slice", &limits).join(" ");
        assert!(
            words.ends_with(
                "SetUnitProperties sba(sv) a.slice true 4 CPUWeight t 39 CPUQuotaPerSecUSec t 500000 \
             MemoryMax t 18446744073709551615 TasksMax t 100"
            ),
            "{words}"
        );
        let words = start("a.slice", &Limits::default()).join(" ");
        assert!(words.contains("a.slice replace 4 CPUAccounting b true"), "{words}");
        assert!(words.ends_with(" 0"), "{words}");
    }
}
