#!/usr/bin/env bash
# install-pebble.sh FOLDER: puts the certificate authority pebble of Debian 13 into a folder, for what that of
# Debian 12 does not know: when it wants a certificate to be renewed (ARI, RFC 9773). Idempotent. Nothing of the
# machine changes: apt fetches the package with lists of its own, and nobody needs to be root.
set -euo pipefail

folder=$1
if [ -x "$folder/usr/bin/pebble" ]; then
  echo "test-install: here is pebble of Debian 13"
  exit 0
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/apt.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" > "$work/sources.list"
apt=(apt-get -qq
  -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache"
  -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
(cd "$work" && "${apt[@]}" download pebble)
dpkg-deb -x "$work"/pebble_*.deb "$folder"
"$folder/usr/bin/pebble" --help 2>&1 | grep -q -- -config
echo "test-install: installed pebble of Debian 13 in $folder"
