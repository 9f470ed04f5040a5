# The same entry points for people and for .ci/run.
#
#   make run        build everything and serve config/quickstart.yaml with a demo origin
#   make test       install what the tests need, run all of them
#   make conformance  the public conformance suite for HTTP caches (needs Node.js)
#   make check      fmt, clippy, deny
#   make bench      every figure of BENCHMARKS.md: the four below, one after the other
#   make bench-program   against floor, HAProxy, nginx and Varnish
#   make bench-micro     the parts, in process
#   make bench-record    records of the second tier, against Node.js
#   make soak       100,000 trapping plugin calls beside a plain route

.PHONY: run build plugins test test-install test-plugins conformance check fmt clippy deny bench bench-install bench-program bench-micro bench-record soak clean

CARGO ?= cargo

run: build
	@scripts/run.sh

build: plugins
	$(CARGO) build --release --locked -p lamina

plugins:
	@plugins/build.sh

# Idempotent: the wasm target and a C compiler for the plugins; Redis for the second tier;
# Node.js and msgpackr, which the record format is compared with.
test-install:
	@tests/install.sh
	@plugins/build.sh --install --strict
	@tests/record/control.sh --install

test: test-install test-plugins
	$(CARGO) build --locked -p lamina
	$(CARGO) test --locked --workspace

# The plugins' own unit tests run natively, in their own workspace.
test-plugins:
	$(CARGO) test --locked --quiet --manifest-path plugins/Cargo.toml --target-dir plugins/target

# Installs the suite into target/conformance the first time.
conformance:
	$(CARGO) build --locked -p lamina
	@tests/conformance/run.sh

check: fmt clippy deny

fmt:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path plugins/Cargo.toml --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny:
	@scripts/deny.sh

bench-install:
	@tests/bench-install.sh

# In turn, never side by side, also under `make -j`: each wants the machine for itself.
bench:
	$(MAKE) bench-program
	$(MAKE) bench-micro
	$(MAKE) bench-record
	$(MAKE) soak

bench-program: build bench-install
	$(CARGO) run --release --locked -p e2e --bin bench

bench-micro: plugins
	$(CARGO) bench --locked -p lamina --bench micro

bench-record:
	@tests/record/control.sh --install
	$(CARGO) bench --locked -p lamina --bench record

soak: build
	$(CARGO) run --release --locked -p e2e --bin soak

clean:
	$(CARGO) clean
	rm -rf plugins/target plugins/dist
