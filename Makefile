# What there is to do in this repository; `make` alone lists it. `make demo` and `make dev` need nothing to be there but
# Rust, a C compiler (Rust's linker), and Python or Go; `make test` Go, Python and, for containers, root on a Debian.

.PHONY: help setup build images test-images test demo dev dev-build bench bench-delays bench-sync bench-memory bench-observed faults faults-build fault-table soak fuzz dashboard-picture docs check nats-config operator-rules schemas clean
.DEFAULT_GOAL := help
# What is built is looked for under target/.
unexport CARGO_TARGET_DIR

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## get what the tests need: packages, NATS, Kubernetes (once)
	@tests/setup

build: ## build all programs
	cargo build --workspace --bins

images: setup build ## build the container images of the dispatcher and of the workload into target/images/
	@tests/images/build dispatcher simple-job
	@ls -l --human-readable target/images/dispatcher.tar target/images/simple-job.tar

test-images: setup build ## build the container images that the tests run
	@tests/images/build pause nats simple-job dispatcher

test: test-images ## run all tests: units, then end to end on the local cluster and on a real Kubernetes
	@tests/run

demo: dev-build ## show in a few seconds what it does: NATS, a local cluster, the dispatcher, two acts
	@target/debug/demo

dev: dev-build ## the same system, left running for you and your clients
	@target/debug/dispatcher dev

dev-build:
	@tests/setup nats
	cargo build --package dispatcher --package simple-job --package dispatcher-demo

bench: setup ## compare the dispatcher's creations with those of a bare Kubernetes client
	@cargo build --quiet --release --workspace --bins
	@target/release/bench

# RUNS=20: how often each; FAULT=name: only tests whose names hold it; SEED=number: one run again; CLUSTER=local: the local cluster.
faults: test-images faults-build ## play every fault with seeds of its own: make faults [RUNS=20] [FAULT=name] [SEED=number] [CLUSTER=local]
	@FAULT_RUNS=$(RUNS) FAULT_SEED=$(SEED) TEST_CLUSTER=$(CLUSTER) cargo test --profile campaign --workspace --no-fail-fast --test campaign --test faults -- $(FAULT) --skip soak

faults-build:
	cargo build --quiet --profile campaign --workspace --bins

fault-table: build ## write the results of `make faults` into docs/reliability.md
	@target/debug/fault-table

soak: test-images faults-build ## any faults in any mix on real parts, for as long as is asked for: make soak [MINUTES=30] [SEED=number] [CLUSTER=local]
	@SOAK_MINUTES=$(or $(MINUTES),30) FAULT_SEED=$(SEED) TEST_CLUSTER=$(CLUSTER) cargo test --profile campaign --workspace --test campaign -- soak --nocapture

fuzz: ## look for inputs that the dispatcher cannot take, kept in dispatcher/fuzz/: make fuzz [MINUTES=10]
	FUZZ_MINUTES=$(or $(MINUTES),10) cargo test --workspace --lib -- fuzz --nocapture

docs: ## build the documentation site into target/docs/ and check its links
	@tests/docs

check: ## check formatting, lints, and what the dependencies may be
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	tests/deny

nats-config: build ## write the stream and consumer files of the shipped templates anew
	target/debug/dispatcher nats-config --output nats-config
	target/debug/dispatcher nats-config --nack --output nats-config

operator-rules: ## write the alert rules as a resource of the Prometheus operator anew
	@cd deploy/observability && { sed '/^spec:/q' operator/prometheusrule.yaml; sed -n '/^groups:/,$$p' rules.yaml | sed 's/^./  &/'; } >operator/new && mv operator/new operator/prometheusrule.yaml

schemas: build ## write the JSON Schemas of events, rejection notices and template files anew
	target/debug/dispatcher schemas --output docs/schemas

bench-delays: setup ## measure how soon after the end of a pod its ATTEMPT and the OUTCOME are stored
	@cargo build --quiet --release --workspace --bins
	@target/release/bench delays

bench-sync: setup ## measure what sync_interval: always of NATS costs
	@cargo build --quiet --release --workspace --bins
	@target/release/bench sync

bench-memory: setup ## measure the memory of the dispatcher: idle, with a long queue, with a NATS that does not answer
	@cargo build --quiet --release --workspace --bins
	@target/release/bench memory

bench-observed: setup ## measure what scrapes of the metrics and spans by OTLP cost
	@cargo build --quiet --release --workspace --bins
	@target/release/bench observed

dashboard-picture: setup build ## draw the dashboard of a run of two minutes into docs/images/dashboard.svg
	@TEST_CLUSTER=local DASHBOARD_PICTURE=docs/images/dashboard.svg cargo test --quiet --workspace --test e2e -- --nocapture observability::each_query

clean: ## remove what was built here (not what is cached for all checkouts)
	cargo clean
