# The commands of the project; CI calls the same ones. Everything that touches the host needs root.
.PHONY: help up down build test lint deny fuzz host-packages

CARGO ?= cargo
BINARY := target/release/kube-lite
KUBECONFIG_FILE := /etc/kube-lite/kube-lite.yaml
IMAGES := /var/lib/kube-lite/agent/images

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

host-packages: ## install what the OS must provide
	@sh docs/install/host-packages.sh

build: ## build the release binary
	$(CARGO) build --release

up: host-packages build ## start a one-node cluster on this host and wait until it is Ready
	@sh docs/install/up.sh $(BINARY) $(KUBECONFIG_FILE) $(IMAGES)

down: ## stop the cluster on this host and remove what it made
	@sh docs/install/down.sh

lint: ## check format and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

deny: ## check licences, sources and bans of the dependencies
	$(CARGO) deny check bans licenses sources

test: ## run every test, with a real cluster of its own where root allows it
	@sh docs/install/host-packages.sh
	$(CARGO) nextest run --locked

SECONDS_EACH ?= 60

fuzz: ## fuzz every reader of bytes from outside for SECONDS_EACH (needs cargo-fuzz and a C++ compiler)
	@for target in fuzz/targets/*.rs; do \
	  name=$$(basename $$target .rs); mkdir -p fuzz/corpus/$$name; echo "== $$name"; \
	  $(CARGO) fuzz run --sanitizer none $$name fuzz/corpus/$$name fuzz/seeds/$$name -- \
	    -max_total_time=$(SECONDS_EACH) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; \
	done
