# The commands of this project. `make` alone lists them.
#
# What takes minutes and changes seldom (RocksDB, the control plane, Vault, command-line tools) is built once a machine,
# into $(KV_CACHE): it survives `git clean` and serves every clone. scripts/cargo is cargo with that RocksDB.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

export KV_CACHE ?= $(HOME)/.cache/kubernetes-vault
export PATH := $(HOME)/.cargo/bin:$(PATH)
# ring compiles a little C for the static binaries.
export CC_x86_64_unknown_linux_musl ?= musl-gcc

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
MUSL := x86_64-unknown-linux-musl
export KV_INIT_BIN := $(TARGET)/$(MUSL)/init/kubernetes-vault-init
export KV_SAMPLE_BIN := $(TARGET)/$(MUSL)/init/sample-app

.PHONY: help
help: ## lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: demo
demo: ready static ## shows the main job on a real control plane and a real Vault (ARGS=--exit ends by itself)
	@scripts/cargo build --release -p kubernetes-vault -p kubernetes-vault-demo
	@# 130: ended by Ctrl-C, which is no failure. make, having got it too, stops by itself.
	@KV_CONTROLLER_BIN=$(TARGET)/release/kubernetes-vault $(TARGET)/release/demo $(ARGS) || [[ $$? == 130 ]]

.PHONY: test
test: ready check static ## everything that CI runs
	@scripts/cargo test --workspace --no-fail-fast
	@# Each bug that is put in on purpose has to be found: the fault suite's own test.
	@scripts/cargo test -p kubernetes-vault --features seeded-bugs --test raft-jepsen -- each_seeded_bug_is_caught
	@KV_PROC_SECONDS=120 scripts/cargo test -p kubernetes-vault --test raft-jepsen-proc

.PHONY: soak
soak: ready static ## the fault suite for HOURS (1 unless given): simulated seeds, then faults on real servers, in turn
	@scripts/soak $(or $(HOURS),1)

.PHONY: check
check: ready ## format, lints, documentation, one TLS provider
	@cargo fmt --all --check
	@scripts/cargo clippy --workspace --all-targets -- -D warnings
	@# It is none of all targets, since it is none of all tests.
	@scripts/cargo clippy -p kubernetes-vault --test raft-jepsen-proc -- -D warnings
	@RUSTDOCFLAGS="-D warnings" scripts/cargo doc --workspace --no-deps
	@scripts/one-tls-provider

.PHONY: bench
bench: ready static ## speed and memory on the testbed, as a table and target/bench.json
	@scripts/cargo build --release -p kubernetes-vault
	@# Thousands of simulated init containers listen in one process.
	@ulimit -n "$$(ulimit -Hn)"
	@KV_CONTROLLER_BIN=$(TARGET)/release/kubernetes-vault scripts/cargo bench --bench testbed -- $(ARGS)

.PHONY: deny
deny: ready ## licences, bans and sources of all dependencies
	@scripts/tool cargo-deny 0.20.2
	@$(KV_CACHE)/tools/bin/cargo-deny check bans licenses sources

# Nix: see nix/.

.PHONY: nix
nix: ## the offline proof: the images are built twice with Nix, and are the same (ARGS=--everything for all of it)
	@nix/ci.sh $(ARGS)

.PHONY: images
images: ## the images as files, in $(TARGET)/images
	@nix/images.sh $(TARGET)/images

.PHONY: release
release: ## images, SBOM, manifests and checksums into dist/, from a clean tree
	@nix/release.sh dist

.PHONY: fmt
fmt: ## formats the code
	@cargo fmt --all

.PHONY: clean
clean: ## removes what was built from this clone (the cache stays)
	@cargo clean

# Kind clusters: docs/kind.md.

.PHONY: kind-smoke
kind-smoke: ready images ## the main end-to-end cases on a real kubelet (left out where no container engine can run)
	@kind/test
	@kind/suite one-node

.PHONY: e2e-kind
e2e-kind: ready images ## the end-to-end suite on a kind cluster of three nodes
	@kind/suite three-nodes

# What the targets above stand on.

.PHONY: ready
ready:
	@scripts/prerequisites
	@scripts/cargo build -p kubernetes-vault-testbed --bin testbed
	@$(TARGET)/debug/testbed build

.PHONY: static
static:
	@# One at a time: together they would be built with the union of their features.
	@scripts/cargo build --profile init --target $(MUSL) -p kubernetes-vault-init
	@scripts/cargo build --profile init --target $(MUSL) -p sample-app
