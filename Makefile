# The project's commands. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := bash
.PHONY: help demo run dev test check deploy-check generate bench bench-all chaos lies soak fuzz

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: ## Upload, kill the gateway in mid-stream, resume, compare digests (needs Rust only)
	cargo run --locked -- demo

run: ## Run the gateway on its embedded stores, in ./data; with a page to upload files at /demo
	cargo run --locked -- serve

dev: ## Run the gateway on real Redis, S3 (versitygw) and Azure (Azurite), in ./data/dev
	@tests/backends/dev

test: ## Install the servers the tests need, run every test, stop the servers
	@tests/backends/run

check: ## Everything but the tests: formatting, lints, other systems, documentation, dependencies, spelling, wording, scripts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	tests/tools/check-targets
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps --document-private-items
	@tests/tools/install
	.tools/bin/cargo-deny --locked check -D warnings bans licenses sources
	.tools/bin/typos
	tests/plain-english/check --self-test
	tests/plain-english/check
	.tools/bin/shellcheck -x $$(git grep --untracked -lE '^#!/usr/bin/env bash|^# shellcheck shell=bash')

deploy-check: ## Check what is in deploy/, the manifests on a real Kubernetes API server (which is built once)
	@tests/deploy/run

generate: ## Generate code for Go, Python, TypeScript and Java from proto/, into ./gen
	@tests/backends/install generators
	PATH="$(CURDIR)/.tools/bin:$$PATH" buf generate proto --template proto/buf.gen.yaml

chaos: ## Kill, pause, cut, flush, fill and lie to everything under 440 uploads, and check each (10 minutes; SEED=N replays a run)
	@tests/backends/install
	cargo test --locked --test chaos -- --full $(if $(SEED),--seed $(SEED))

lies: ## Answer every call to a store wrongly, in every way, on every way in which a file gets in (half an hour)
	@tests/backends/install
	TMPDIR=$${TMPDIR:-/dev/shm} cargo test --locked --test lies -- --full $(if $(ONLY),--only "$(ONLY)")

soak: ## Attack a gateway in every way beside honest uploads: memory, failures, latency (20 minutes; ONLY="stalled messages" runs one attack)
	cargo test --locked --release --test soak -- --full $(if $(ONLY),--only "$(ONLY)")

fuzz: ## Fuzz all parsers of external input, and the signatures: SECONDS_EACH seconds (30) for each target (needs c++)
	@fuzz/run $(or $(SECONDS_EACH),30)

bench: ## Measure a release build beside tusd and direct uploads (half an hour; CELLS="1x2GiB 1000x1KiB" measures some cells; PEERS=rustus)
	@tests/backends/install bench $(PEERS)
	CELLS="$(CELLS)" PEERS="$(PEERS)" cargo bench --locked --bench gateway -- peers

bench-all: ## Measure everything else, too: throughput, CPU, memory, lists, signatures, … (an hour)
	@tests/backends/install bench
	cargo bench --locked --bench gateway
