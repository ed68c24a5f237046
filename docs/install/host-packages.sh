#!/bin/sh
# Installs what a node needs of Debian or Ubuntu; does nothing where all of it is there. Needs root to install.
set -eu
missing=""
# need PACKAGE FILE-OR-PROGRAM...: the package is missing when none of them is there
need() {
  package=$1
  shift
  for thing in "$@"; do
    case $thing in
      /*) [ -e "$thing" ] && return ;;
      *) command -v "$thing" > /dev/null 2>&1 && return ;;
    esac
  done
  missing="$missing $package"
}
PATH=$PATH:/usr/sbin:/sbin
need build-essential cc
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need containerd containerd
need runc runc
need containernetworking-plugins /usr/lib/cni/bridge /opt/cni/bin/bridge
need iptables iptables-restore
need conntrack conntrack
need iproute2 ip
need mount mount
need busybox-static busybox
need curl curl
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null 2>&1; then
  echo "install these packages first (the names are Debian's):$missing" >&2
  exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The container runtime is started by kube-lite with directories of its own, not as a service of the host.
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
