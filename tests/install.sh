#!/usr/bin/env bash
# Installs what the tests need beside Rust: Redis with its Sentinel and redis-cli, from
# Debian. Idempotent. No service is started: policy-rc.d forbids it while apt runs, the
# tests start their own servers on their own ports.
set -euo pipefail

wanted=()
for package in redis-server redis-sentinel redis-tools rabbitmq-server; do
  dpkg -s "$package" >/dev/null 2>&1 || wanted+=("$package")
done
if [ "${#wanted[@]}" -eq 0 ]; then
  echo "test-install: redis is here"
  exit 0
fi

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${wanted[@]}"
echo "test-install: installed ${wanted[*]}"
