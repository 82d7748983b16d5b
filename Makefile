# vnfpool: what can be done with this repository. `make` alone prints this list.

SHELL := /bin/sh
.DEFAULT_GOAL := help
# rustup puts cargo here; a root shell started by sudo often does not look there.
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO := cargo
# Build exactly what Cargo.lock says; a change of it is a commit of its own.
LOCKED := --locked
# Where cargo puts it.
VNFPOOL := $(or $(CARGO_TARGET_DIR),target)/release/vnfpool

# The parts of a target run one after the other, also under `make -j`.
.NOTPARALLEL:
.PHONY: help root setup setup-bench build demo test lint fuzz prove prove-sim prove-worlds bench bench-state matrix clean-lab

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): needs root, since it makes network namespaces; try: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

setup: ## Install what building and testing need and this machine lacks
	@scripts/setup

setup-bench:
	@scripts/setup --bench

build: ## Build the release program: target/release/vnfpool
	$(CARGO) build $(LOCKED) --release --package vnfpool

demo: root setup build ## See a pool of two gateways lose its active (root; writes vnfpool-demo.html)
	$(VNFPOOL) demo

lint: ## Formatting, clippy and documentation, without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --package vnfpool-sim --features broken --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --package vnfpool-fuzz --features libfuzzer --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps

# The tests come last, so that their summary is the end of the output.
test: root setup lint ## Run every check and every test (root)
	$(CARGO) nextest run $(LOCKED) --package vnfpool-sim --features broken --test broken
	$(CARGO) nextest run $(LOCKED) --workspace

# Its environment: FUZZ_SECONDS for each target.
fuzz: setup ## Look for bytes of a peer or a function that do harm: FUZZ_SECONDS (60) for each target
	@testing/fuzz/run

prove: prove-sim prove-worlds ## Look for counter-examples for hours: simulated pools, every history of small worlds

SECONDS ?= 1800
prove-sim:
	$(CARGO) run $(LOCKED) --release --package vnfpool-sim -- --seconds $(SECONDS)

prove-worlds:
	$(CARGO) run $(LOCKED) --release --package vnfpool-prove -- --world all --max-seconds 300
	$(CARGO) run $(LOCKED) --release --package vnfpool-prove -- --world broken

bench: root setup-bench build ## Measure the figures beside keepalived's (root; hours, 40 minutes of them load-long; writes vnfpool-bench.md)
	$(VNFPOOL) bench

bench-state: root setup-bench build ## Measure state replication beside conntrackd's (root; half an hour; writes vnfpool-bench-state.md)
	$(VNFPOOL) bench state

matrix: root setup-bench build ## Every fault there is, beside keepalived (root; about an hour; writes vnfpool-matrix.html, .md)
	$(VNFPOOL) lab matrix --html --markdown

clean-lab: root ## Remove what an interrupted demo, bench or test left behind
	@if [ -x $(VNFPOOL) ]; then $(VNFPOOL) lab clean; else $(CARGO) run $(LOCKED) --quiet --package vnfpool -- lab clean; fi
