#!/usr/bin/env bash
# What a call of each shipped plugin costs, as a Markdown table: `lamina plugin bench` with
# the plugin's own cases. Builds nothing: `make bench-plugins` does before.
set -euo pipefail
cd "$(dirname "$0")/.."

lamina=${1:-target/dist/lamina}
seconds=${SECONDS_EACH:-6}

echo "| plugin | hook | fresh µs | reused µs | remembered µs | memory of an instance: linear | resident when fresh |"
echo "|---|---|---|---|---|---|---|"
for cases in plugins/*/cases.yaml; do
    name=$(basename "$(dirname "$cases")")
    "$lamina" plugin bench "plugins/dist/$name.wasm" --cases "$cases" --seconds "$seconds" |
        awk -v name="$name" '
            $1 == "hook" { next }
            $1 == "instance" { memory = $2 " KiB | " ($5 == "" ? "–" : $5 " KiB"); next }
            { rows[++n] = $1 " | " $2 " | " $3 " | " ($4 == "-" ? "–" : $4) }
            END { for (i = 1; i <= n; i++) print "| " name " | " rows[i] " | " memory " |" }'
done
