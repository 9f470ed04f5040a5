#!/usr/bin/env bash
# Bans, licences and sources of all dependencies (deny.toml), and known faults of theirs by the
# database of RustSec, which is on github.com. Where that host can't be reached the faults are not
# checked, and it is said; with LAMINA_ADVISORIES=required that is a failure. Any other reason for
# which the database can't be had is one in any case.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
cargo deny --log-level error check bans licenses sources
if told=$(cargo deny fetch db 2>&1); then
    cargo deny --log-level error check --disable-fetch advisories
    exit 0
fi
unreachable='could not resolve host|failed to connect|could not connect|connection timed out|network is unreachable'
if ! grep -qiE "$unreachable" <<<"$told"; then
    printf '%s\ndeny: the database of advisories is not as it should be\n' "$told" >&2
    exit 1
fi
echo "deny: the database of advisories (github.com/RustSec/advisory-db) can't be reached; advisories were not checked" >&2
[ "${LAMINA_ADVISORIES:-}" != required ]
