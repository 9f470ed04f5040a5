#!/usr/bin/env bash
# Installs what `make bench` measures beside us: wrk, nginx, HAProxy and Varnish
# from Debian. Idempotent. No service is started: policy-rc.d forbids it while
# apt runs, because the benchmark starts its own processes on its own ports and
# a machine's port 80 is nobody's business here.
set -euo pipefail

wanted=()
for package in wrk nginx haproxy varnish; do
  dpkg -s "$package" >/dev/null 2>&1 || wanted+=("$package")
done
if [ "${#wanted[@]}" -eq 0 ]; then
  echo "bench-install: wrk, nginx, haproxy and varnish are here"
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
echo "bench-install: installed ${wanted[*]}"
