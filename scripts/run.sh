#!/usr/bin/env bash
# Starts the demo origin and the gateway on config/quickstart.yaml, says what to try,
# and ends both together.
set -euo pipefail
cd "$(dirname "$0")/.."
lamina=${LAMINA_BIN:-target/debug/lamina}

"$lamina" demo-origin --listen 127.0.0.1:8081 &
origin=$!
"$lamina" run -c config/quickstart.yaml &
gateway=$!
trap 'kill $origin $gateway 2>/dev/null || true; wait || true' EXIT
trap 'exit 0' INT TERM

# Ready when the admin port answers and both still run; one that ended has said why.
until sleep 0.3 && (exec 3<>/dev/tcp/127.0.0.1/9180) 2>/dev/null; do
    kill -0 $gateway $origin 2>/dev/null || exit 1
done
kill -0 $gateway $origin 2>/dev/null || exit 1

cat <<'TRY'

Lamina serves http://127.0.0.1:8080 and https://localhost:8443, admin on http://127.0.0.1:9180. In another terminal:

  curl -i http://127.0.0.1:8080/pages/hello                     # twice: fwd=uri-miss … stored, then hit with Age
  curl -i 'http://127.0.0.1:8080/search?q=tea&utm_source=mail'  # a key plugin drops utm_*: …
  curl -i 'http://127.0.0.1:8080/search?utm_source=ad&q=tea'    # … one entry for both
  curl -i http://127.0.0.1:8080/account/42                      # a loader plugin: two origin calls at once, one answer
  curl http://127.0.0.1:9180/v1/purge -H 'Content-Type: application/json' -d '{"tag": "pages"}'
  curl http://127.0.0.1:9180/metrics
  curl -i --cacert .lamina/ca/ca.pem https://localhost:8443/pages/hello            # over HTTP/2
  curl -i --cacert .lamina/ca/ca.pem --http3 https://localhost:8443/pages/hello    # over HTTP/3, if your curl has it

A browser trusts https://localhost:8443 when .lamina/ca/ca.pem is among its authorities. The key of
that authority is in the same folder: remove it from the browser when you are done.
http://127.0.0.1:8080/ lists the other pages. Ctrl-C ends it.
This build was quick to make and is slow to run: `make dist` makes the one to measure.

TRY
wait $gateway
