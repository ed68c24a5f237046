#!/bin/sh
# Stops the cluster that `make up` started, with its containers, and removes what it made. A configuration that
# somebody wrote to /etc/kube-lite stays. May be repeated.
set -eu
[ "$(id -u)" = 0 ] || { echo "make down: run it as root" >&2; exit 1; }
data=/var/lib/kube-lite
run=/run/kube-lite
kubelet=/var/lib/kubelet
pidfile=$run/kube-lite.pid

# stop PID: SIGTERM, and SIGKILL after ten seconds
stop() {
  kill "$1" 2> /dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$1" 2> /dev/null || return 0
    sleep 0.1
  done
  kill -9 "$1" 2> /dev/null || true
}
# ours PATTERN: the processes whose command line names one of our directories
ours() { pgrep -f -- "$1" || true; }

[ -f "$pidfile" ] && [ "$(readlink "/proc/$(cat "$pidfile")/exe" 2> /dev/null)" = /usr/local/bin/kube-lite ] && stop "$(cat "$pidfile")"
for pid in $(ours "containerd .*$data/agent/etc/containerd/config.toml"); do stop "$pid"; done
# A shim takes its containers with it when its children are gone.
for shim in $(ours "containerd-shim.* -address $run/"); do
  pkill -9 -P "$shim" 2> /dev/null || true
  kill -9 "$shim" 2> /dev/null || true
done
# What other places hold of our pods: their logs, results of the network plugins, and cgroups, once they are empty.
for uid in $(ls "$kubelet/pods" 2> /dev/null || true); do rm -rf /var/log/pods/*_"$uid"; done
[ ! -d /var/log/containers ] || find /var/log/containers -xtype l -lname '/var/log/pods/*' -delete
for result in /var/lib/cni/results/kube-lite-*-eth0; do
  sandbox=${result#/var/lib/cni/results/kube-lite-}
  rm -f "$result" "/var/lib/cni/results/cni-loopback-${sandbox%-eth0}-lo"
done
rm -rf /var/lib/cni/networks/kube-lite
find /sys/fs/cgroup -depth -type d \( -path '*/k8s.io' -o -path '*/k8s.io/*' -o -path '*/kubepods*' \) -exec rmdir {} + 2> /dev/null || true
# Mounts below our directories, the innermost first.
for directory in "$run" "$data" "$kubelet"; do
  awk -v d="$directory/" 'index($2 "/", d) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
    umount -l "$mount" 2> /dev/null || true
  done
done
for namespace in $(ip netns list 2> /dev/null | awk '$1 ~ /^cni-/ { print $1 }'); do ip netns delete "$namespace" || true; done
ip link delete cni0 2> /dev/null || true
# The addresses of cluster DNS, and routes that lead into the cluster from a host without a default route.
for address in $(ip -o address show dev lo scope host | awk '$4 !~ /^(127\.|::1)/ { print $4 }'); do
  case $address in 10.43.*) ip address delete "$address" dev lo || true ;; esac
done
if command -v iptables-save > /dev/null 2>&1; then
  for family in iptables ip6tables; do
    "$family-save" 2> /dev/null | grep -qE 'KUBE-|CNI-|KUBE_LITE' || continue
    "$family-save" | grep -vE 'KUBE-|CNI-|KUBE_LITE' | "$family-restore"
  done
fi
rmdir /var/log/containers /var/log/pods /var/lib/cni/results /var/lib/cni/networks /var/lib/cni 2> /dev/null || true
rm -rf "$kubelet/pods" "$kubelet/plugins" "$kubelet/plugins_registry" "$kubelet/device-plugins" "$kubelet/seccomp"
rmdir "$kubelet" 2> /dev/null || true
rm -rf "$data" "$run" /etc/kube-lite/kube-lite.yaml /etc/kube-lite/node /var/log/kube-lite.log
rm -f /usr/local/bin/kube-lite
rmdir /etc/kube-lite 2> /dev/null || true
echo "The cluster is gone."
