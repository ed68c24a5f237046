# A node image: kube-lite with the runtime, network plugins and tools that a node needs.
#   docker build -t kube-lite .
#   docker run -d --privileged --tmpfs /run -p 6443:6443 -v kube-lite:/var/lib/kube-lite kube-lite
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin kube-lite && install -D target/release/kube-lite /out/kube-lite

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates conntrack containerd containernetworking-plugins iproute2 iptables mount runc \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/kube-lite /usr/local/bin/kube-lite
VOLUME /var/lib/kube-lite
EXPOSE 6443 10250
ENTRYPOINT ["/usr/local/bin/kube-lite"]
CMD ["server"]
