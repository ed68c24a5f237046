//! Flags of k3s that mean nothing here: they are taken with a warning, so that existing unit files start.

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing::warn;

/// Flags with a value, and why they change nothing.
const WITH_VALUE: &[(&str, &str)] = &[
    ("flannel-backend", "the pod network is built in"),
    ("flannel-iface", "the pod network is built in"),
    ("flannel-conf", "the pod network is built in"),
    ("flannel-cni-conf", "the pod network is built in"),
    ("egress-selector-mode", "the API server reaches nodes directly"),
    ("servicelb-namespace", "the service load balancer needs no pods"),
    ("helm-job-image", "there is no Helm controller"),
    ("default-local-storage-path", "the nodePath parameter of a StorageClass says where local volumes lie"),
    ("system-default-registry", "nothing is pulled at the start"),
    ("airgap-extra-registry", "nothing is pulled at the start"),
    ("kube-apiserver-arg", "the API server is built in and has no such arguments"),
    ("kube-controller-manager-arg", "the controllers are built in and have no such arguments"),
    ("kube-scheduler-arg", "the scheduler is built in and has no such arguments"),
    ("kube-cloud-controller-manager-arg", "there is no cloud controller"),
    ("etcd-arg", "there is no embedded etcd"),
    ("kube-proxy-arg", "the Service proxy is built in and has no such arguments"),
];

/// Switches, and why they change nothing.
const SWITCHES: &[(&str, &str)] = &[
    ("disable-cloud-controller", "there is no cloud controller"),
    ("disable-helm-controller", "there is no Helm controller"),
    ("disable-network-policy", "there is no network policy controller yet"),
    ("flannel-ipv6-masq", "the pod network is built in"),
    ("flannel-external-ip", "the pod network is built in"),
    ("selinux", "SELinux labels are left to the container runtime"),
    ("prefer-bundled-bin", "the programs of the host are used"),
    ("supervisor-metrics", "metrics are served by the API server"),
    ("protect-kernel-defaults", "kernel settings are checked at every start"),
];

/// Adds the ignored flags, hidden from the help.
pub fn ignored_flags(mut command: Command) -> Command {
    for (name, _) in WITH_VALUE {
        command =
            command.arg(Arg::new(*name).long(*name).hide(true).action(ArgAction::Append).value_name("VALUE"));
    }
    for (name, _) in SWITCHES {
        command = command.arg(
            Arg::new(*name)
                .long(*name)
                .hide(true)
                .num_args(0..=1)
                .require_equals(true)
                .action(ArgAction::Append),
        );
    }
    command
}

/// Says once of each ignored flag that was given why it changes nothing.
pub fn warn_about_ignored(matches: &ArgMatches) {
    for (flag, reason) in WITH_VALUE.iter().chain(SWITCHES) {
        if matches.value_source(flag).is_some() {
            warn!(flag, reason, "this flag changes nothing");
        }
    }
}
