//! The node agent: pod workers, status, probes, volumes, images, node status and the kubelet's HTTPS server.
