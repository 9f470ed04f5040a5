#!/usr/bin/env bash
# Bans, licences and sources of all dependencies (deny.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
cargo deny --log-level error check bans licenses sources
