//! NodeResourcesFit and NodeResourcesBalancedAllocation: enough must be free; the emptier and the more balanced a node
//! would be, the better.

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, MAX_SCORE, NODE_ADDED, NODE_ALLOCATABLE, NodeFilter, NodeScorer, Outcome,
    POD_GONE, POD_UPDATED, Reason, Score,
};
use crate::scheduler::pod_info::PodInfo;

/// Filters by what is free and scores by LeastAllocated.
#[derive(Debug)]
pub struct Fit;

impl Filter for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_ALLOCATABLE | POD_GONE | POD_UPDATED
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        Some(Box::new(Wanted(cycle.pod)))
    }
}

struct Wanted<'a>(&'a PodInfo);

impl NodeFilter for Wanted<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let before = reasons.len();
        let mut hopeless = false;
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.allowed_pods {
            reasons.push(Reason::Text("Too many pods"));
        }
        let (wanted, used, offered) = (&self.0.requests, &node.requested, &node.allocatable);
        for (amount, used, offered, reason) in [
            (wanted.milli_cpu, used.milli_cpu, offered.milli_cpu, "Insufficient cpu"),
            (wanted.memory, used.memory, offered.memory, "Insufficient memory"),
            (
                wanted.ephemeral_storage,
                used.ephemeral_storage,
                offered.ephemeral_storage,
                "Insufficient ephemeral-storage",
            ),
        ] {
            if amount > 0 && amount > offered.saturating_sub(used) {
                reasons.push(Reason::Text(reason));
                hopeless |= amount > offered;
            }
        }
        for (name, amount) in &wanted.extended {
            let offered = offered.extended(name);
            if *amount > 0 && *amount > offered.saturating_sub(used.extended(name)) {
                reasons.push(Reason::Insufficient(name.clone()));
                hopeless |= *amount > offered;
            }
        }
        match (reasons.len() > before, hopeless) {
            (false, _) => Outcome::Fits,
            (true, false) => Outcome::Rejected,
            (true, true) => Outcome::Unresolvable,
        }
    }
}

impl Score for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        Some(Box::new(LeastAllocated(cycle.pod)))
    }
}

struct LeastAllocated<'a>(&'a PodInfo);

impl NodeScorer for LeastAllocated<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let free = |offered: i64, wanted: i64| {
            if offered <= 0 || wanted > offered { 0 } else { (offered - wanted) * MAX_SCORE / offered }
        };
        let cpu = free(node.allocatable.milli_cpu, node.scored.0 + self.0.scored.0);
        let memory = free(node.allocatable.memory, node.scored.1 + self.0.scored.1);
        (cpu + memory) / 2
    }
}

/// Scores by how evenly CPU and memory would be used.
#[derive(Debug)]
pub struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        let asks = cycle.pod.requests.milli_cpu > 0 || cycle.pod.requests.memory > 0;
        asks.then(|| Box::new(Balanced(cycle.pod)) as _)
    }
}

struct Balanced<'a>(&'a PodInfo);

impl NodeScorer for Balanced<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        // Shares in thousandths; with two resources the standard deviation is half their difference.
        let share = |used: i64, offered: i64| {
            if offered <= 0 { 1000 } else { (i128::from(used) * 1000 / i128::from(offered)).min(1000) }
        };
        let cpu = share(node.requested.milli_cpu + self.0.requests.milli_cpu, node.allocatable.milli_cpu);
        let memory = share(node.requested.memory + self.0.requests.memory, node.allocatable.memory);
        let deviation = i64::try_from((cpu - memory).abs() / 2).unwrap_or(1000);
        (1000 - deviation) * MAX_SCORE / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{cluster, node, pod, pod_on};
    use serde_json::{Value, json};

    fn check(requests: Value) -> (Outcome, Vec<String>) {
        let used = pod_on("used", "n", json!({"cpu": "3", "memory": "7Gi", "x/gpu": "1"}));
        let node = node("n", json!({"status": {"allocatable": {"x/gpu": "2", "pods": "2"}}}));
        let (cluster, mut reasons) = (cluster([node], &[used]), Vec::new());
        let outcome = Wanted(&pod("p", requests)).check(&cluster.nodes()[0], &mut reasons);
        (outcome, reasons.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        for (requests, outcome, reasons) in [
            (json!({"cpu": "1", "memory": "1Gi", "x/gpu": "1"}), Outcome::Fits, vec![]),
            (json!({}), Outcome::Fits, vec![]),
            (json!({"cpu": "1001m"}), Outcome::Rejected, vec!["Insufficient cpu"]),
            (json!({"cpu": "5"}), Outcome::Unresolvable, vec!["Insufficient cpu"]),
            (
                json!({"cpu": "2", "memory": "2Gi"}),
                Outcome::Rejected,
                vec!["Insufficient cpu", "Insufficient memory"],
            ),
            (
                json!({"ephemeral-storage": "11Gi"}),
                Outcome::Unresolvable,
                vec!["Insufficient ephemeral-storage"],
            ),
            (json!({"x/gpu": "2"}), Outcome::Rejected, vec!["Insufficient x/gpu"]),
            (json!({"y/none": "1"}), Outcome::Unresolvable, vec!["Insufficient y/none"]),
        ] {
            let reasons = reasons.into_iter().map(str::to_owned).collect();
            assert_eq!(check(requests.clone()), (outcome, reasons), "{requests}");
        }
    }

    #[test]
    fn a_full_node_takes_no_more_pods() {
        let pods = [pod_on("a", "n", json!({})), pod_on("b", "n", json!({}))];
        let cluster = cluster([node("n", json!({"status": {"allocatable": {"pods": "2"}}}))], &pods);
        let mut reasons = Vec::new();
        assert_eq!(Wanted(&pod("p", json!({}))).check(&cluster.nodes()[0], &mut reasons), Outcome::Rejected);
        assert_eq!(reasons, [Reason::Text("Too many pods")]);
    }

    #[test]
    fn emptier_and_more_balanced_nodes_score_higher() {
        let busy = pod_on("x", "busy", json!({"cpu": "2"}));
        let cluster = cluster([node("free", json!({})), node("busy", json!({}))], &[busy]);
        let pod = pod("p", json!({"cpu": "1", "memory": "2Gi"}));
        let [free, busy] = [0, 1].map(|at| {
            (LeastAllocated(&pod).score(&cluster.nodes()[at]), Balanced(&pod).score(&cluster.nodes()[at]))
        });
        assert_eq!(free, (75, 100));
        assert!(busy.0 < free.0 && busy.1 < free.1, "{busy:?}");
    }
}
