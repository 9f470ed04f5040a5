#!/usr/bin/env bash
# install-debian13.sh FOLDER: puts nginx, HAProxy, wrk and curl of Debian 13 into a folder, for the comparison
# over HTTP/3 and with X25519MLKEM768, which those of Debian 12 do not know. Idempotent. Nothing of the machine changes:
# the programs are run by the loader of that folder, with its libraries.
set -euo pipefail

folder=$1
if [ -x "$folder/usr/sbin/nginx" ] && [ -x "$folder/usr/sbin/haproxy" ] && [ -x "$folder/usr/bin/wrk" ] \
  && [ -x "$folder/usr/bin/curl" ]; then
  echo "bench-install: here are nginx, HAProxy, wrk and curl of Debian 13"
  exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
mkdir -p "$(dirname "$folder")"
"${as_root[@]}" rm -rf "$folder"
"${as_root[@]}" debootstrap --variant=minbase --include=nginx-light,haproxy,wrk,curl trixie "$folder" >/dev/null
echo "bench-install: installed nginx, HAProxy, wrk and curl of Debian 13 in $folder"
