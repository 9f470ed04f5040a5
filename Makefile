# The same entry points for people and for .ci/run.
#
#   make run        build everything, quickly, and serve config/quickstart.yaml with a demo origin
#   make build      a build for use: target/release/lamina
#   make dist       the build that is shipped and measured, target/dist/lamina, and all that a
#                   release consists of in target/release-artefacts: Debian package, completions,
#                   manual, list of dependencies, checksums
#   make test       install what the tests need, run all of them
#   make test-image the Dockerfile's own steps in bare roots of Debian 12, since they need no engine; what
#                   they make is started as an engine would start it (builds the product: half an hour)
#   make test-cms   applications and clients that purge, as they are, behind two nodes: those that `make
#                   test` has, too (MediaWiki, Wagtail, npm's and PyPI's clients of Fastly and Cloudflare),
#                   and WordPress and FOSHttpCache where LAMINA_WORDPRESS_PLUGINS and LAMINA_FOSHTTPCACHE
#                   name folders of what no registry has
#   make conformance  the public conformance suite for HTTP caches (needs Node.js); FRONT=tls-h1,
#                   tls-h2 or h3 asks over TLS; conformance-fronts and differential-fronts over each
#   make fuzz       every fuzz target for FUZZ_SECONDS (60) each, see tests/fuzz/run.sh
#   make check      fmt, clippy, deny
#   make differential    (FRONT=h3 over HTTP/3, or tls-h1, tls-h2) ours beside nginx and Varnish: each difference explained or shown
#   make bench      every figure of BENCHMARKS.md but those of soaks: the parts below in turn, and `soak`
#   make bench-program   against floor, HAProxy, nginx and Varnish
#   make bench-neighbours   hits beside 2,000 handshakes a second and beside RSA-4096; requests beside slow
#                   readers of the same HTTP/2 upstream
#   make bench-micro     the parts, in process
#   make bench-plugins   a call of each shipped plugin, in every language
#   make bench-record    records of the second tier, against Node.js
#   make bench-faults    a target that fails and a name that changes, with Lamina and five other
#                   proxies from PyPI (FAULTS="--only lamina,nginx-tuned --faults hangs --rounds 3"
#                   for a few, FAULTS="--faults names" for names alone)
#   make soak-attacks    ten minutes of attacks beside normal load, in clear text and then over TLS
#                   (DURATION=60 for a minute of each)
#   make soak-l2    Redis frozen under load; a hundred kills with a disk; rounds of faults of both
#   make soak-bus   eight nodes and 10,000 purges on each transport; the broker and a node killed;
#                   rounds of faults on each with each second tier (ROUNDS=20 SEED=7 for a few others)
#   make soak-reload     a hundred reloads of everything that may change, under load of all protocols
#   make soak-upgrade    twenty take-overs by another process under the same load, one that fails
#   make soak-everything  an hour of the same load with a reload each ten seconds, another certificate
#                   and a take-over each minute (DURATION=600 for ten minutes)
#   make soak-readers  an hour of clients that read 1 KB/s over each protocol, beside clients that
#                   stop reading (DURATION=120 for two minutes)
#   make soak-plugins  half an hour of plugins in all languages, with new files all the time
#   make soak       100,000 trapping plugin calls beside a plain route

.PHONY: run build dist build-dist plugins test test-install test-plugins test-cms conformance conformance-fronts fuzz check fmt clippy deny differential differential-fronts bench bench-install bench-program bench-neighbours bench-micro bench-plugins bench-record bench-faults soak soak-attacks soak-l2 soak-bus soak-plugins soak-reload soak-upgrade soak-everything soak-readers test-image clean

CARGO ?= cargo

# The tests enable features of dependencies; with these, a build shares all that is compiled with them.
SHARED := --features lamina/shared-with-tests
LAMINA := $(CARGO) build --locked -p lamina $(SHARED)

run:
	@echo "make run: 1 of 3, the plugins of the quickstart; what this machine cannot build is skipped"
	@plugins/build.sh
	@echo "make run: 2 of 3, the gateway; the first time this takes about seven and a half minutes on two cores"
	$(LAMINA)
	@echo "make run: 3 of 3, starting"
	@scripts/run.sh

build: plugins
	$(CARGO) build --release --locked -p lamina

dist: plugins
	@tests/install.sh dist $(PACKAGERS)
	$(CARGO) build --profile dist --locked -p lamina
	@scripts/dist.sh target/dist/lamina

# As it is shipped (see Cargo.toml), with the programs that measure it beside it.
build-dist: plugins
	$(CARGO) build --profile dist --locked -p lamina -p e2e --bins

plugins:
	@plugins/build.sh

# Real servers that the tests start themselves.
BROKERS := redis-server redis-sentinel redis-tools nats-server rabbitmq-server
# libfaketime: wall clocks that are wrong.
CLOCK := faketime

# A certificate authority with a name server, for automatic certificates; curl changes its records.
AUTHORITY := pebble curl

# A name server, for the names of origins.
NAMES := dnsmasq-base

# What scans TLS listeners; sslyze comes from PyPI.
SCANNERS := sslscan testssl.sh python3-venv

# A real browser, for what web pages may do to a gateway.
BROWSER := chromium

# What Debian packages are made and checked with.
PACKAGERS := dpkg-dev binutils lintian systemd

# What takes completions and the manual.
READERS := zsh fish mandoc groff-base

# MediaWiki, with PHP and SQLite.
WIKI := mediawiki php-cli php-sqlite3 php-mbstring php-xml php-intl php-curl

# WordPress, with a database, and what FOSHttpCache's tests need.
BLOG := wordpress wordpress-theme-twentytwentyone wordpress-theme-twentytwentythree mariadb-server-core mariadb-client php-cli php-mysql php-curl
SUITES := phpunit php-guzzlehttp-guzzle php-http-httplug php-symfony-event-dispatcher php-symfony-options-resolver php-symfony-process php-symfony-http-kernel

# Idempotent: what the plugins are built with (the wasm target, a C compiler, npm's and
# PyPI's tools for JavaScript, Python and Zig); Redis for the second tier; Chromium for
# what web pages may do; scanners of TLS; a certificate authority that says when it wants to renew
# and a curl that speaks HTTP/3;
# Node.js with msgpackr, which the forms of records and events are compared with, and with
# clients of the brokers; what makes Debian packages; applications and clients that purge.
test-install:
	@tests/install.sh test-install $(BROKERS) $(BROWSER) $(CLOCK) $(AUTHORITY) $(NAMES) $(SCANNERS) $(PACKAGERS) $(READERS) $(WIKI)
	@tests/install-of-debian13.sh target/debian13-pebble pebble
	@tests/install-of-debian13.sh target/debian13-curl curl
	@scripts/tools.sh cargo-deb cargo-cyclonedx
	@tests/scanners/sslyze.sh --install
	@plugins/build.sh --install --strict
	@tests/record/control.sh --install
	@tests/bus/control.sh --install
	@tests/cms/control.sh --install

test: test-install test-plugins
	$(LAMINA)
	@scripts/test.sh

# As root. `scripts/image.py try` tries again what was built.
test-image:
	@tests/install.sh test-image debootstrap iproute2
	@scripts/image.py

# The plugins' own unit tests, each in its language; those in Rust run natively, in their
# own workspace.
test-plugins:
	$(CARGO) test --locked --quiet --manifest-path plugins/Cargo.toml --target-dir plugins/target
	@plugins/build.sh --install --strict --test

# What is not there is left out, and said.
test-cms:
	@tests/install.sh test-cms $(WIKI) $(BLOG) $(SUITES)
	@tests/cms/control.sh --install
	$(LAMINA)
	$(CARGO) test --locked --workspace $(SHARED) --test e2e -- --include-ignored --nocapture cms_

# How the gateway is asked in `make conformance` and `make differential`: clear, tls-h1, tls-h2, h3.
FRONT ?= clear

# Installs the suite into target/conformance the first time.
conformance:
	$(LAMINA)
	[ $(FRONT) = clear ] || $(CARGO) build --locked --workspace $(SHARED) --bin front
	@tests/conformance/run.sh --front=$(FRONT)

# Each way but clear text, one after the other.
conformance-fronts:
	$(MAKE) conformance FRONT=tls-h1
	$(MAKE) conformance FRONT=tls-h2
	$(MAKE) conformance FRONT=h3

# A workspace of its own: libFuzzer and coverage on the stable toolchain.
fuzz:
	@tests/fuzz/run.sh

check: fmt clippy deny

fmt:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path plugins/Cargo.toml --all --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny:
	@scripts/deny.sh

bench-install:
	@tests/install.sh bench-install wrk nginx haproxy varnish nats-server nghttp2-client debootstrap
	@tests/install-debian13.sh target/debian13

# SEED and REQUESTS choose another stream, as in `make differential SEED=7`.
SEED ?= 1
REQUESTS ?= 12000

differential: bench-install
	$(LAMINA)
	$(CARGO) run --locked $(SHARED) --bin differential -- --seed $(SEED) --requests $(REQUESTS) --front $(FRONT)

differential-fronts:
	$(MAKE) differential FRONT=tls-h1
	$(MAKE) differential FRONT=tls-h2
	$(MAKE) differential FRONT=h3

# In turn, never side by side, also under `make -j`: each wants the machine for itself.
bench:
	$(MAKE) bench-program
	$(MAKE) bench-neighbours
	$(MAKE) bench-micro
	$(MAKE) bench-plugins
	$(MAKE) bench-record
	$(MAKE) bench-faults
	$(MAKE) soak

bench-program: build-dist bench-install
	$(CARGO) run --profile dist --locked -p e2e --bin bench

bench-micro: plugins
	$(CARGO) bench --locked -p lamina-edge --bench micro

# What a call of each shipped plugin costs, in every language.
bench-plugins: build-dist plugins
	@scripts/bench-plugins.sh

# What hits cost beside floods of handshakes and of misses, requests beside slow readers of their upstream, and a password.
bench-neighbours: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin bench_neighbours

bench-record:
	@tests/record/control.sh --install
	$(CARGO) bench --locked -p lamina-cache --bench record

# Installs the proxies into target/peers the first time.
bench-faults: build-dist
	@tests/install.sh bench-faults python3-venv $(NAMES)
	$(CARGO) run --profile dist --locked -p e2e --bin bench_faults -- $(FAULTS)

soak: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak

soak-attacks: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak_attacks -- $(or $(DURATION),600)
	$(CARGO) run --profile dist --locked -p e2e --bin soak_attacks -- $(or $(DURATION),600) tls

# Rounds of faults for each transport and second tier, drawn by a seed: with the three second
# tiers more than 1,000 a transport, in an hour and a half.
ROUNDS ?= 334
# Those in which wall clocks leap, for each as well.
CLOCK_ROUNDS ?= 20
SEED ?= 1

soak-l2: build-dist
	@tests/install.sh test-install $(BROKERS)
	$(CARGO) run --profile dist --locked -p e2e --bin soak_l2
	$(CARGO) run --profile dist --locked -p e2e --bin soak_bus -- --rounds $(ROUNDS) --seed $(SEED) --harm store --transport redis --tier disk --tier redis --pages 24

# SOAK_BUS chooses, as in `make soak-bus SOAK_BUS="--transport nats --faults"`.
SOAK_BUS ?= --faults --flood 100000

soak-bus: build-dist
	@tests/install.sh test-install $(BROKERS)
	$(CARGO) run --profile dist --locked -p e2e --bin soak_bus -- $(SOAK_BUS)
	$(CARGO) run --profile dist --locked -p e2e --bin soak_bus -- --rounds $(ROUNDS) --seed $(SEED) --pages 24
	$(CARGO) run --profile dist --locked -p e2e --bin soak_bus -- --rounds $(CLOCK_ROUNDS) --seed $(SEED) --harm clock --pages 24

soak-reload: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak_reload

soak-upgrade: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak_upgrade

# A reload each ten seconds.
SOAKED := $(or $(DURATION),3600)

soak-everything: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak_reload -- $$(($(SOAKED) / 10)) $(SOAKED) 6

soak-readers: build-dist
	$(CARGO) run --profile dist --locked -p e2e --bin soak_readers -- $(or $(DURATION),3600)

soak-plugins: build-dist plugins
	$(CARGO) run --profile dist --locked -p e2e --bin soak_plugins

clean:
	$(CARGO) clean
	rm -rf plugins/target plugins/dist
