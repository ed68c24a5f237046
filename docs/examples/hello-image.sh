#!/bin/sh
# Builds an image from the host's static busybox as an OCI archive, with no registry and no builder.
# usage: hello-image.sh ARCHIVE [IMAGE-NAME]
set -eu
archive=$1
name=${2:-localhost/hello:1}
busybox=$(command -v busybox) || { echo "hello-image.sh: install busybox-static first" >&2; exit 1; }
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/image/blobs/sha256"
cp "$busybox" "$work/root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
done
# Programs that are linked statically cannot look names up with glibc: bash, and the libraries it wants, can
# (exec 3<>/dev/tcp/NAME/PORT).
bash=$(command -v bash) && cp "$bash" "$work/root/bin/bash"
for library in $(ldd "$bash" | grep -o '/[^ ]*'); do
  mkdir -p "$work/root$(dirname "$library")"
  cp -L "$library" "$work/root$library"
done
echo 'hosts: files dns' > "$work/root/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/bin/sh' > "$work/root/etc/passwd"
echo 'root:x:0:' > "$work/root/etc/group"
chmod 1777 "$work/root/tmp"

# blob FILE: moves FILE to where its digest says and prints the digest.
blob() {
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$work/image/blobs/sha256/$digest"
  echo "$digest"
}
tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer" .
layer_size=$(stat -c %s "$work/layer")
layer=$(blob "$work/layer")
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$arch" "$layer" > "$work/config"
config_size=$(stat -c %s "$work/config")
config=$(blob "$work/config")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
  "$config" "$config_size" "$layer" "$layer_size" > "$work/manifest"
manifest_size=$(stat -c %s "$work/manifest")
manifest=$(blob "$work/manifest")
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
  "$manifest" "$manifest_size" "$name" "${name##*:}" > "$work/image/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' > "$work/image/oci-layout"
mkdir -p "$(dirname "$archive")"
tar -C "$work/image" --sort=name -cf "$archive.part" .
mv "$archive.part" "$archive"
