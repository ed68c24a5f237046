//! Composition root of `kube-lite server`.
