//! Events about pods: reasons and wording as upstream's kubelet has them.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::client::{EventType, Recorder};
use crate::kubelet::spec;

/// Records events about one pod and its containers.
#[derive(Clone, Debug)]
pub struct PodEvents {
    recorder: Recorder,
    pod: ObjectReference,
    fields: Vec<(String, String)>,
}

impl PodEvents {
    /// Events about this pod.
    pub fn new(recorder: &Recorder, pod: &Pod) -> Self {
        let field = |list: &str, name: &str| (name.to_owned(), format!("spec.{list}{{{name}}}"));
        let inits = spec::init_containers(pod).iter().map(|c| field("initContainers", &c.name));
        let mains = spec::main_containers(pod).iter().map(|c| field("containers", &c.name));
        let others = spec::ephemeral_containers(pod).iter().map(|c| field("ephemeralContainers", &c.name));
        let fields = inits.chain(mains).chain(others).collect();
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(spec::namespace(pod).to_owned()),
            name: Some(spec::name(pod).to_owned()),
            uid: Some(spec::uid(pod).to_owned()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: None,
        };
        Self { recorder: recorder.clone(), pod, fields }
    }

    /// Events that go nowhere.
    #[cfg(test)]
    pub fn discard() -> Self {
        Self::new(&Recorder::discard(), &Pod::default())
    }

    /// Something ordinary happened to the pod, or to the container of this name.
    pub fn normal(&self, container: Option<&str>, reason: &str, message: &str) {
        self.record(EventType::Normal, container, reason, message);
    }

    /// Something went wrong with the pod, or with the container of this name.
    pub fn warning(&self, container: Option<&str>, reason: &str, message: &str) {
        self.record(EventType::Warning, container, reason, message);
    }

    fn record(&self, kind: EventType, container: Option<&str>, reason: &str, message: &str) {
        let path = container.and_then(|name| self.fields.iter().find(|(n, _)| n == name));
        let field_path = path.map(|(_, path)| path.clone());
        let regarding = ObjectReference { field_path, ..self.pod.clone() };
        self.recorder.event_for(regarding, kind, reason, message);
    }
}
