//! ImageLocality: nodes that have the pod's images already are a little better.

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{Cycle, MAX_SCORE, NodeScorer, Score};

const MIN: i64 = 23 * 1024 * 1024;
const MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

/// The plugin.
#[derive(Debug)]
pub struct ImageLocality;

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        // With one node there is nothing to choose, and the comparison would cost for nothing.
        if cycle.cluster.nodes().len() < 2 {
            return None;
        }
        let spec = cycle.pod.spec()?;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let names: Vec<String> = containers.filter_map(|c| c.image.as_deref()).map(normal).collect();
        let containers = i64::try_from(names.len()).unwrap_or(1);
        let nodes = i64::try_from(cycle.cluster.nodes().len()).unwrap_or(i64::MAX);
        let images = names
            .into_iter()
            .map(|name| {
                let having = cycle.nodes().filter(|node| node.images.contains_key(&name)).count();
                (name, i64::try_from(having).unwrap_or(i64::MAX))
            })
            .filter(|(_, having)| *having > 0)
            .collect::<Vec<_>>();
        (!images.is_empty()).then(|| Box::new(Images { images, nodes, containers }) as _)
    }
}

struct Images {
    /// Name, and how many nodes have it.
    images: Vec<(String, i64)>,
    nodes: i64,
    /// How many containers the pod has.
    containers: i64,
}

impl NodeScorer for Images {
    fn score(&self, node: &NodeInfo) -> i64 {
        let sum: i64 = self
            .images
            .iter()
            .filter_map(|(name, having)| {
                node.images.get(name).map(|size| size.saturating_mul(*having) / self.nodes)
            })
            .sum();
        let max = MAX_PER_CONTAINER.saturating_mul(self.containers);
        (sum.clamp(MIN, max) - MIN) * MAX_SCORE / (max - MIN)
    }
}

/// The name with a tag.
fn normal(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{cluster, node, pod_with};
    use serde_json::json;

    #[test]
    fn a_node_with_the_image_scores_higher() {
        let images = json!({"status": {"images": [{"names": ["big:latest"], "sizeBytes": 900 << 20}]}});
        let cluster = cluster([node("has", images), node("has-not", json!({}))], &[]);
        let pod = pod_with("p", json!({"spec": {"containers": [{"name": "c", "image": "big"}]}}));
        let cycle = Cycle { pod: &pod, cluster: &cluster, without: None };
        let scorer = ImageLocality.prepare(cycle, &[]).unwrap();
        let [has, has_not] = [0, 1].map(|at| scorer.score(&cluster.nodes()[at]));
        assert!(has > 40 && has_not == 0, "{has} {has_not}");
    }
}
