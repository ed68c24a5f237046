#!/bin/sh
# Starts `kube-lite server` on this host, or leaves a running one alone, and waits until its node is Ready.
# usage: up.sh BINARY KUBECONFIG IMAGES-DIRECTORY
set -eu
binary=$1
kubeconfig=$2
images=$3
here=$(dirname "$0")
log=/var/log/kube-lite.log
pidfile=/run/kube-lite/kube-lite.pid
[ "$(id -u)" = 0 ] || { echo "make up: run it as root: a node mounts, routes and starts containers" >&2; exit 1; }

running() {
  [ -f "$pidfile" ] && pid=$(cat "$pidfile") && [ "$(readlink "/proc/$pid/exe" 2> /dev/null)" = "$installed" ]
}
# get PATH: asks the API server with the administrator's certificate, and needs no kubectl
get() {
  credential() { sed -n "s/^ *$1: *//p" "$kubeconfig" | head -n 1; }
  work=$(mktemp -d)
  credential certificate-authority-data | base64 -d > "$work/ca"
  credential client-certificate-data | base64 -d > "$work/cert"
  credential client-key-data | base64 -d > "$work/key"
  status=0
  curl -fsS --max-time 5 --cacert "$work/ca" --cert "$work/cert" --key "$work/key" "$(credential server)$1" 2> /dev/null || status=$?
  rm -rf "$work"
  return "$status"
}
node_is_ready() { get /api/v1/nodes | tr -d ' \n' | grep -q '"status":"True","type":"Ready"\|"type":"Ready","status":"True"\|"status":"True"[^{}]*"type":"Ready"'; }

installed=/usr/local/bin/kube-lite
if ! cmp -s "$binary" "$installed"; then
  # Renamed into place: the running program keeps its own file.
  install -m 0755 "$binary" "$installed.new"
  mv "$installed.new" "$installed"
fi
mkdir -p /run/kube-lite "$images"
[ -e "$images/hello.tar" ] || "$here/../examples/hello-image.sh" "$images/hello.tar"
if ! running; then
  setsid "$installed" server >> "$log" 2>&1 < /dev/null &
  echo $! > "$pidfile"
fi
tries=0
until [ -f "$kubeconfig" ] && node_is_ready; do
  tries=$((tries + 1))
  if ! kill -0 "$(cat "$pidfile")" 2> /dev/null; then
    echo "make up: kube-lite has ended; the end of $log:" >&2
    tail -n 5 "$log" >&2
    exit 1
  fi
  if [ "$tries" -ge 300 ]; then
    echo "make up: the node is not Ready after a minute; see $log" >&2
    exit 1
  fi
  sleep 0.2
done
echo "The cluster is up: one node, Ready. Its log is $log."
echo "kubeconfig: $kubeconfig"
echo "next:       export KUBECONFIG=$kubeconfig && kubectl apply -f docs/examples/hello.yaml && kubectl get pods -o wide"
