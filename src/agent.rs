//! Composition root of `kube-lite agent`.
