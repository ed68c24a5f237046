//! Certificates, kubeconfigs and join tokens.
