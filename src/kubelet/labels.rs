//! Labels and annotations on sandboxes and containers: how a restarted kubelet finds its own again.
//!
//! The names are upstream's, so that other tools (crictl, log shippers) recognise them.

/// Pod name, on sandboxes and containers.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Pod namespace, on sandboxes and containers.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Pod UID, on sandboxes and containers.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Container name, on containers.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: hash of what makes a container need a restart when it changes.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before.
pub const CONTAINER_RESTARTS: &str = "io.kubernetes.container.restartCount";
/// Annotation: path of the termination message inside the container.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's termination grace period, for containers whose pod the API no longer knows.
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation: the preStop handler as JSON, for containers whose pod the API no longer knows.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Annotation: requests and limits that the container was made with, as JSON.
pub const RESOURCES: &str = "kube-lite.io/container.resources";
/// Annotation: seconds that the container waits before its next restart; doubles with every crash.
pub const RESTART_BACKOFF: &str = "kube-lite.io/container.restartBackoff";
