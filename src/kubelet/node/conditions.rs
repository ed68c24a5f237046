//! Node conditions from real figures.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;

use crate::cri::v1;
use crate::kubelet::eviction::Pressure;
use crate::kubelet::status::derive::time;

/// Memory that is kept free, and not pods'.
pub const MEMORY_LEAST: u64 = 100 << 20;

/// What the conditions are derived from.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What the node is short of.
    pub pressure: Pressure,
    /// The runtime's conditions, or why it does not answer.
    pub runtime: Option<Result<Vec<v1::RuntimeCondition>, String>>,
    /// What the runtime's handlers can do.
    pub handlers: Vec<v1::RuntimeHandler>,
    /// What the runtime can do.
    pub features: Option<v1::RuntimeFeatures>,
    /// The machine is about to go down.
    pub shutting_down: bool,
}

/// Types that the kubelet sets.
pub const OWNED: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// The kubelet's conditions, with transition times kept where nothing changed.
pub fn conditions(figures: &Figures, former: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let Pressure { memory, disk, pid: pids } = figures.pressure;
    let (ready, reason, message) = readiness(figures);
    [
        pressure(
            "MemoryPressure",
            memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        condition("Ready", ready, reason, message),
    ]
    .into_iter()
    .map(|mut c| {
        let same = former.iter().find(|f| f.type_ == c.type_ && f.status == c.status);
        c.last_transition_time = same.and_then(|f| f.last_transition_time.clone()).or(Some(time(now)));
        c.last_heartbeat_time = Some(time(now));
        c
    })
    .collect()
}

fn pressure(type_: &str, yes: bool, bad: (&str, &str), good: (&str, &str)) -> NodeCondition {
    let (reason, message) = if yes { bad } else { good };
    condition(type_, yes, reason, message.to_owned())
}

fn condition(type_: &str, yes: bool, reason: &str, message: String) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: if yes { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    }
}

fn readiness(figures: &Figures) -> (bool, &'static str, String) {
    const NOT_READY: &str = "KubeletNotReady";
    let conditions = match &figures.runtime {
        None => {
            return (
                false,
                NOT_READY,
                "container runtime status check may not have completed yet".to_owned(),
            );
        }
        Some(Err(error)) => return (false, NOT_READY, format!("container runtime is down: {error}")),
        Some(Ok(conditions)) => conditions,
    };
    for (type_, words) in
        [("RuntimeReady", "container runtime"), ("NetworkReady", "container runtime network")]
    {
        match conditions.iter().find(|c| c.r#type == type_) {
            Some(c) if c.status => {}
            Some(c) => {
                let text =
                    format!("{words} not ready: {type_}=false reason:{} message:{}", c.reason, c.message);
                return (false, NOT_READY, text);
            }
            None => return (false, NOT_READY, format!("{words} not ready: {type_} is not reported")),
        }
    }
    if figures.shutting_down {
        return (false, NOT_READY, "node is shutting down".to_owned());
    }
    (true, "KubeletReady", "kubelet is posting ready status".to_owned())
}

/// Whether anything but the heartbeat time differs.
pub fn differ(a: &[NodeCondition], b: &[NodeCondition]) -> bool {
    let find = |type_: &str| a.iter().find(|c| c.type_ == type_);
    b.iter().any(|n| {
        find(&n.type_).is_none_or(|o| o.status != n.status || o.reason != n.reason || o.message != n.message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn runtime(network: bool) -> Option<Result<Vec<v1::RuntimeCondition>, String>> {
        let one = |type_: &str, status, message: &str| v1::RuntimeCondition {
            r#type: type_.into(),
            status,
            reason: "R".into(),
            message: message.into(),
        };
        Some(Ok(vec![
            one("RuntimeReady", true, ""),
            one("NetworkReady", network, "cni plugin not initialized"),
        ]))
    }

    fn healthy() -> Figures {
        Figures { runtime: runtime(true), ..Figures::default() }
    }

    fn statuses(figures: &Figures) -> Vec<String> {
        conditions(figures, &[], at(1)).into_iter().map(|c| c.status).collect()
    }

    #[test]
    fn figures_decide() {
        assert_eq!(statuses(&healthy()), ["False", "False", "False", "True"]);
        let pressure = Pressure { memory: true, disk: true, pid: true };
        let poor = Figures { pressure, runtime: runtime(false), ..Figures::default() };
        assert_eq!(statuses(&poor), ["True", "True", "True", "False"]);
        let leaving = Figures { shutting_down: true, ..healthy() };
        let ready = conditions(&leaving, &[], at(1)).pop().unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.message.as_deref()),
            ("False", Some("node is shutting down"))
        );
        let ready = conditions(&poor, &[], at(1)).pop().unwrap();
        assert_eq!(
            ready.message.as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false reason:R message:cni plugin not initialized"
            )
        );
    }

    #[test]
    fn transitions_are_dated_once() {
        let first = conditions(&healthy(), &[], at(1));
        let second = conditions(&healthy(), &first, at(9));
        assert!(!differ(&first, &second));
        let ready = second.last().unwrap();
        assert_eq!(ready.last_transition_time.as_ref().unwrap().0, at(1));
        assert_eq!(ready.last_heartbeat_time.as_ref().unwrap().0, at(9));
        let down = Figures { runtime: Some(Err("gone".into())), ..healthy() };
        let third = conditions(&down, &second, at(10));
        assert!(differ(&second, &third));
        assert_eq!(third.last().unwrap().last_transition_time.as_ref().unwrap().0, at(10));
    }
}
