#!/usr/bin/env bash
# install.sh LABEL PACKAGE...: installs Debian packages that tests or benchmarks need.
# Idempotent. No service is started: policy-rc.d forbids it while apt runs. Tests and
# benchmarks start their own servers on their own ports, and a machine's port 80 is
# nobody's business here.
set -euo pipefail

label=$1
shift
wanted=()
for package in "$@"; do
  dpkg -s "$package" >/dev/null 2>&1 || wanted+=("$package")
done
if [ "${#wanted[@]}" -eq 0 ]; then
  echo "$label: here are $*"
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
echo "$label: installed ${wanted[*]}"
