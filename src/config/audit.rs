//! What of requests is recorded, and where; the flags are upstream's API server's.

use std::path::PathBuf;

use clap::Args;

/// The flags about the audit log.
#[derive(Args, Debug, Clone)]
pub struct AuditConfig {
    /// File with the audit policy (audit.k8s.io/v1); without it nothing is recorded
    #[arg(long, env = "KUBE_LITE_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,

    /// File that audit events are written to; `-` is standard output
    #[arg(long, env = "KUBE_LITE_AUDIT_LOG_PATH", value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,

    /// Days after which old audit logs are removed; 0 is never
    #[arg(long, env = "KUBE_LITE_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u32,

    /// How many old audit logs are kept; 0 is all
    #[arg(long, env = "KUBE_LITE_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "COUNT")]
    pub audit_log_maxbackup: usize,

    /// Megabytes after which a new audit log is begun
    #[arg(long, env = "KUBE_LITE_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_name = "MEGABYTES")]
    pub audit_log_maxsize: u64,
}
