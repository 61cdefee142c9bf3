# The project's commands. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := bash
.PHONY: help demo run dev test check generate bench chaos fuzz

help: ## List these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: ## Upload, kill the gateway in mid-stream, resume, compare digests (needs Rust only)
	cargo run --locked -- demo

run: ## Run the gateway on its embedded stores, in ./data
	cargo run --locked -- serve

dev: ## Run the gateway on real Redis, S3 (versitygw) and Azure (Azurite), in ./data/dev
	@tests/backends/dev

test: ## Install the servers the tests need, run every test, stop the servers
	@tests/backends/run

check: ## Formatting, clippy and rustdoc without a warning
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps --document-private-items
	@echo 'one TLS stack: no OpenSSL'; ! cargo tree --locked --edges normal --prefix none | grep -E '^(openssl-sys|native-tls) '
	@if command -v typos >/dev/null; then typos; else echo 'not checked: spelling (typos is not installed)'; fi
	@if command -v shellcheck >/dev/null; then shellcheck -x .ci/run fuzz/run tests/backends/{install,run,dev}; \
	else echo 'not checked: shell scripts (shellcheck is not installed)'; fi

generate: ## Generate code for Go, Python, TypeScript and Java from proto/, into ./gen
	@tests/backends/install generators
	PATH="$(CURDIR)/.tools/bin:$$PATH" buf generate proto --template proto/buf.gen.yaml

chaos: ## Kill, pause, cut and flush everything under 400 uploads, and check each (some minutes; SEED=N replays a run)
	@tests/backends/install
	cargo test --locked --test chaos -- --full $(if $(SEED),--seed $(SEED))

fuzz: ## Fuzz what reads from outside, and the signatures: every target SECONDS_EACH seconds, 30 if not said (needs c++)
	@fuzz/run $(or $(SECONDS_EACH),30)

bench: ## Measure throughput, CPU and memory of a release build (some minutes)
	@tests/backends/install
	cargo bench --locked --bench gateway
