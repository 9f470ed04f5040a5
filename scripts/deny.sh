#!/usr/bin/env bash
# Bans, licences and sources of all dependencies (deny.toml), and known faults of theirs where
# the database of RustSec can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
cargo deny --log-level error check bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check --disable-fetch advisories
else
    echo "deny: the database of advisories (github.com/RustSec/advisory-db) can't be reached; advisories were not checked" >&2
fi
