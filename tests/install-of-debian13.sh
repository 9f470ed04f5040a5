#!/usr/bin/env bash
# install-of-debian13.sh FOLDER PACKAGE: puts a program of Debian 13, which has the name of its package, into a
# folder with the libraries that it needs: pebble says when it wants a certificate to be renewed (ARI, RFC 9773)
# and curl speaks HTTP/3, which those of Debian 12 do not. Idempotent. Nothing of the machine changes: apt fetches
# packages with lists of its own, and nobody needs to be root.
set -euo pipefail

folder=$1
package=$2
if [ -x "$folder/usr/bin/$package" ]; then
  echo "test-install: here is $package of Debian 13"
  exit 0
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/apt.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/programs"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" > "$work/sources.list"
: > "$work/status"
apt=(apt-get -qq
  -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status"
  -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
# On a machine with no package at all, which is what an empty status says, that is all that it needs.
"${apt[@]}" install --download-only --no-install-recommends -y "$package" >/dev/null
for fetched in "$work"/cache/archives/*.deb; do
  case ${fetched##*/} in
    "$package"_*) ;;
    *) dpkg-deb -x "$fetched" "$work/programs" ;;
  esac
done
# Of the others the libraries alone, and of the package all, which says last that nothing is missing.
mkdir -p "$folder/usr"
cp -a "$work"/programs/usr/lib "$work"/programs/usr/lib64 "$folder/usr/"
dpkg-deb -x "$work/cache/archives/$package"_*.deb "$folder"
echo "test-install: installed $package of Debian 13 in $folder"
