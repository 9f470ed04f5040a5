#!/usr/bin/env bash
# install-debian13.sh FOLDER: puts nginx and HAProxy of Debian 13 into a folder, for the comparison
# over HTTP/3, which those of Debian 12 do not speak. Idempotent. Nothing of the machine changes:
# the programs are run by the loader of that folder, with its libraries.
set -euo pipefail

folder=$1
if [ -x "$folder/usr/sbin/nginx" ] && [ -x "$folder/usr/sbin/haproxy" ]; then
  echo "bench-install: here are nginx and HAProxy of Debian 13"
  exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
mkdir -p "$(dirname "$folder")"
"${as_root[@]}" rm -rf "$folder"
"${as_root[@]}" debootstrap --variant=minbase --include=nginx-light,haproxy trixie "$folder" >/dev/null
echo "bench-install: installed nginx and HAProxy of Debian 13 in $folder"
