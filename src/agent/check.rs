//! What this host lacks for a node, and what that means: the work of `kube-lite check-config`.

use std::path::Path;

use crate::config;
use crate::host::preflight::{self, Needs, Problem};
use crate::host::{Host, advice};
use crate::kubelet::containerd::ContainerdConfig;

/// What was found.
#[derive(Debug)]
pub struct HostReport {
    /// A line for each thing that is missing, or one that all is well.
    pub text: String,
    /// A node can run here.
    pub fit: bool,
}

/// Looks at this host; nothing is changed.
pub fn check_host(data_dir: &Path) -> HostReport {
    let host = Host::real(config::program_directories());
    let settings = ContainerdConfig::new(data_dir.join("agent"), "/run/kube-lite");
    let needs = Needs { containerd: true, firewall: true, cni_directories: settings.cni_bin_dirs() };
    report(&preflight::check(&host, &needs), &advice::check(&host))
}

fn report(lacking: &[Problem], missed: &[Problem]) -> HostReport {
    let lines = |mark: &'static str, list: &[Problem]| -> String {
        list.iter().map(|problem| format!("{mark}: {problem}\n")).collect()
    };
    let fit = lacking.is_empty();
    let end = match (fit, missed.is_empty()) {
        (true, true) => "ok: nothing is missing\n",
        (true, false) => "ok: a node can run here\n",
        (false, _) => "",
    };
    let text = format!("{}{}{end}", lines("needed", lacking), lines("optional", missed));
    HostReport { text, fit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_before_what_is_only_missed() {
        let problem = |what: &str| Problem { what: what.into(), why: "x", remedy: "y".into() };
        assert_eq!(report(&[], &[]).text, "ok: nothing is missing\n");
        let poor = report(&[problem("a")], &[problem("b")]);
        assert_eq!(
            poor.text,
            "needed: a is missing, without which x: y\noptional: b is missing, without which x: y\n"
        );
        assert!(!poor.fit);
        let fair = report(&[], &[problem("b")]);
        assert!(fair.fit && fair.text.ends_with("ok: a node can run here\n"));
    }
}
