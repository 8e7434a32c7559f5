# `make try` and `make test` are the two commands of the README; the rest is for people who work on it.
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
CWASM := $(TARGET)/plugins/preflight-node.cwasm
BUILTIN := $(TARGET)/plugins/wasm32-wasip2/plugin/mortise_preflight_node.wasm

.PHONY: try build test test-fast test-cluster test-long lint fuzz bench bench-plugins cluster release-interfaces

# A whole worker join against a control plane inside the process, into a fresh directory.
try:
	cargo build -p mortise
	$(TARGET)/debug/mortise sandbox join

# The release binary, native code of the built-in plugin inside: the same engine makes it in a first pass.
build:
	cargo build -p mortise
	$(TARGET)/debug/mortise __precompile $(BUILTIN) $(CWASM)
	MORTISE_PREFLIGHT_NODE_CWASM=$(abspath $(CWASM)) cargo build --release -p mortise
	@ls -l $(TARGET)/release/mortise

# One set of packages and features for all tests: another one would build wasmtime again.

# Everything. The cluster tier needs root; without it the run says so and fails. A failure does not keep the rest from being told.
test: test-fast test-cluster

# Everything that an ordinary user can run, without a cluster.
test-fast:
	tests/tier fast cargo test --workspace --features mortise/faults

test-cluster: cluster
	@if [ "$$(id -u)" != 0 ]; then \
	  echo "CLUSTER TIER SKIPPED: IT NEEDS ROOT (NETWORK NAMESPACES, CONTAINERD). RUN: sudo make test"; exit 1; fi
	tests/tier cluster bash -c 'failed=0; run() { cargo test --workspace --features mortise/faults "$$@" --skip long:: || failed=1; }; \
	  run --test cluster --test control_planes --test teardown -- --ignored; \
	  run --test api-conformance -- --ignored; \
	  run --test etcd -- --ignored --test-threads=3; \
	  run --test registry -- --ignored; \
	  run --test control-plane-prepare -- --ignored; \
	  run --test prepare -- --ignored; \
	  run --test guests -- --ignored hours; \
	  run --test control-plane -- --ignored --test-threads=2 --skip killed::; \
	  run --test control-plane -- --ignored killed::; \
	  run --test join -- --ignored --test-threads=3 --skip killed::; \
	  run --test join -- --ignored --test-threads=2 killed::; exit $$failed'

# What takes too long for every change: tests below a module `long`, of any test target. Needs root; shows what they measure.
test-long: cluster
	@if [ "$$(id -u)" != 0 ]; then echo "TIER long NEEDS ROOT. RUN: sudo make test-long"; exit 1; fi
	tests/tier long cargo test --workspace --features mortise/faults --tests --no-fail-fast -- \
	  --ignored --nocapture --test-threads=1 long::

# Kubernetes, etcd and containerd, oras and cosign from their Go modules, once, into ~/.cache/mortise.
cluster:
	cargo run --quiet -p mortise-cluster -- build
	cargo run --quiet -p mortise-cluster -- build-registry-tools

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features mortise/faults -- -D warnings
	cargo deny --offline check licenses bans sources || cargo deny check licenses bans sources

# Each fuzz target for so many seconds; see tests/fuzz/README.md. Needs cargo-fuzz and a C++ compiler, no nightly toolchain.
SECONDS ?= 60
fuzz:
	SECONDS_EACH=$(SECONDS) tests/fuzz/run

# Texts and components of the interfaces' present version, against which later hosts are tested.
release-interfaces:
	cargo test --workspace --features mortise/faults --test kinds -- --ignored writes_the_texts

# What plugins cost, beside a helper and a script; then joins against the real kubeadm on fresh nodes of real clusters.
bench: build bench-plugins cluster
	cargo bench --quiet --profile dev -p mortise-cluster --bench join --bench control-plane

bench-plugins:
	MORTISE_BIN=$(abspath $(TARGET)/release/mortise) \
	  cargo bench --quiet --profile dev --workspace --features mortise/faults --bench plugins
