# What is used daily. Plain `make` says what there is.

.PHONY: help run test check fmt clean wasm-target

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: wasm-target ## start the bazaar; Ctrl-C stops it
	cargo run --release

test: wasm-target ## run all tests
	cargo test --workspace

check: wasm-target ## check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

clean: ## remove all that was built
	cargo clean

wasm-target: ## see to it that policies can be compiled
	@scripts/wasm-target
