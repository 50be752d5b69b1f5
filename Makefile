# The targets of this repository; `make` lists them. `make demo` and `make dev` need Rust, a C
# compiler (as Rust's linker), and Python or Go. `make test` needs Go, Python and, to run containers,
# root on Debian.

.PHONY: help setup build images test-images test test-oldest-kubernetes test-kueue demo dev dev-build bench bench-docs bench-peers instructions chaos chaos-build \
	chaos-table upgrade-test soak hostile fuzz dashboard-picture console-pictures demo-recording docs rustdoc check nats-config manifests schemas release-dry-run clean
.DEFAULT_GOAL := help
# The recipes expect programs under target/.
unexport CARGO_TARGET_DIR

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what the tests need: packages, NATS, Kubernetes (once)
	@tests/setup

build: ## build all programs
	cargo build --workspace --bins

images: ## build the images of the dispatcher and simple-job into target/images/
	@tests/images/build dispatcher simple-job
	@ls -l --human-readable target/images/dispatcher.tar target/images/simple-job.tar

test-images: setup build ## build the images that the tests run
	@tests/images/build pause nats simple-job dispatcher

test: test-images ## run all tests: unit tests, then end to end on the local cluster and on Kubernetes
	@tests/run

test-oldest-kubernetes: test-images ## run the end-to-end suite on the oldest supported Kubernetes (a build of some minutes, once)
	@tests/setup oldest
	@TEST_KUBERNETES=oldest TEST_CLUSTER=kubernetes RUST_TEST_THREADS=4 PATH="$$PATH:$${XDG_CACHE_HOME:-$$HOME/.cache}/dispatcher/bin" \
		cargo test --workspace --no-fail-fast --test e2e

test-kueue: test-images ## run the tests with Kueue, which takes about 5 minutes to build once
	@tests/setup kueue
	@TEST_CLUSTER=kubernetes PATH="$$PATH:$${XDG_CACHE_HOME:-$$HOME/.cache}/dispatcher/bin" \
		cargo test --workspace --test e2e -- kueue --include-ignored

demo: dev-build ## run a short demo: NATS, a local cluster and the dispatcher
	@target/debug/demo

dev: dev-build ## run NATS, a local cluster and the dispatcher until interrupted
	@target/debug/dispatcher dev

dev-build:
	@tests/setup nats
	cargo build --package dispatcher --package simple-job --package dispatcher-demo

# WHAT: some of creation pinned replicas single life calls attempts live frozen finished history, or
# sync, observed or viewers. SIZE=small is a quick run. BASELINE: another dispatcher's program.
bench: setup ## run the benchmarks: make bench [WHAT="creation life"] [SIZE=small] [BASELINE=path]
	@cargo build --quiet --release --workspace --bins
	@SIZE=$(SIZE) BASELINE=$(BASELINE) target/release/bench $(WHAT)

bench-docs: ## write the results of the last full run of `make bench` into docs/performance.md
	@cargo build --quiet --release --package dispatcher-tests --bin bench
	@target/release/bench docs

instructions: setup ## record the instructions of the hot paths, which `make test` compares
	@RECORD_INSTRUCTIONS=1 cargo test --quiet --workspace --test instructions

bench-peers: ## compare with Argo Events and KEDA, built from their modules: make bench-peers [SIZE=quick] [SIDES="bare argo"]
	@tests/setup peers
	@cargo build --quiet --release --workspace --bins
	@target/release/bench-peers $(or $(SIZE),full) $(SIDES)

# RUNS: runs of each scenario. SCENARIO: a part of the tests' names. SEED: repeats one run.
# CLUSTER=local: runs on the local cluster.
chaos: test-images chaos-build ## run the chaos suite: make chaos [RUNS=20] [SCENARIO=name] [SEED=n] [CLUSTER=local]
	@CHAOS_RUNS=$(RUNS) CHAOS_SEED=$(SEED) TEST_CLUSTER=$(CLUSTER) cargo test --profile chaos \
		--workspace --no-fail-fast --test chaos --test fault_injection -- $(SCENARIO) --skip soak

chaos-build:
	cargo build --quiet --profile chaos --workspace --bins

# PREVIOUS: a tag or commit. Default: the newest tag before this commit.
upgrade-test: test-images chaos-build ## upgrade and roll back under load: make upgrade-test [PREVIOUS=revision] [RUNS=3] [CLUSTER=local]
	@previous=$$(tests/previous $(PREVIOUS)) && PREVIOUS_DISPATCHER=$$previous \
		CHAOS_RUNS=$(or $(RUNS),3) TEST_CLUSTER=$(CLUSTER) cargo test --profile chaos --workspace --test chaos -- upgrade --nocapture

chaos-table: build ## write the results of `make chaos` into docs/fault-table.md
	@target/debug/chaos-table

soak: test-images chaos-build ## inject random faults for a while: make soak [MINUTES=30] [SEED=n] [CLUSTER=local]
	@SOAK_MINUTES=$(or $(MINUTES),30) CHAOS_SEED=$(SEED) TEST_CLUSTER=$(CLUSTER) cargo test \
		--profile chaos --workspace --test chaos -- soak --nocapture

hostile: test-images ## run the hostile-client suite at the full size of docs/reliability.md
	@HOSTILE_REQUESTS=500 HOSTILE_FLOOD=10000 HOSTILE_ROUNDS=5 HOSTILE_DEAD_LETTERS=20000 HOSTILE_QUEUED=1000 \
		RUST_TEST_THREADS=1 cargo test --release --workspace --no-fail-fast --test hostile -- --nocapture

fuzz: ## fuzz the dispatcher's parsers; inputs that fail are kept: make fuzz [MINUTES=10]
	FUZZ_MINUTES=$(or $(MINUTES),10) cargo test --workspace --lib -- fuzz --nocapture

docs: ## build the documentation site into target/docs/ and check its links
	@tests/docs

demo-recording: dev-build ## record the demo into docs/images/demo.svg, an animated picture
	@python3 tests/recording.py docs/images/demo.svg "make demo" target/debug/demo

rustdoc: ## build the API documentation into target/doc/; a warning is an error
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
		cargo doc --quiet --workspace --no-deps --document-private-items

check: ## check formatting, lints and dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	tests/deny

nats-config: build ## generate nats-config/ from the shipped templates
	target/debug/dispatcher nats-config --output nats-config
	target/debug/dispatcher nats-config --nack --output nats-config
	for prefix in blue green; do \
		target/debug/dispatcher nats-config --roles --prefix $$prefix --output nats-config/prefixes/$$prefix && \
		find nats-config/prefixes/$$prefix -type f ! -name dispatcher.conf -delete; done

manifests: setup ## generate the manifests of deploy/ from the Helm chart in deploy/chart
	@tests/manifests

schemas: build ## generate the JSON Schemas of events, rejections and template files
	target/debug/dispatcher schemas --output docs/schemas

release-dry-run: ## build a release into target/artifacts/; CHECK=1 builds it twice and compares the bytes
	@CHECK=$(CHECK) release/dry-run

dashboard-picture: setup build ## run the system for two minutes and draw its dashboard into docs/images/
	@TEST_CLUSTER=local DASHBOARD_PICTURE=docs/images/dashboard.svg cargo test --quiet \
		--workspace --test e2e -- --nocapture observability::dashboard_queries

console-pictures: setup build ## draw the console in light, dark and on a phone into docs/images/
	@TEST_CLUSTER=local CONSOLE_PICTURES=docs/images cargo test --quiet \
		--workspace --test e2e -- --nocapture console::page_fits

clean: ## delete target/ (not the cache that all checkouts share)
	cargo clean
