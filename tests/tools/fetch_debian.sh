#!/bin/sh
# Unpack a Debian package, without root and without installing it:
#   fetch_debian.sh SUITE FOLDER PACKAGE...
# The archive's address is taken from this machine's own apt configuration, so that mirrors and proxies are honoured;
# only the suite's name is ours. Used for Consul (last in the suite `bullseye`) and for nginx.
set -eu
suite=$1 folder=$2
shift 2
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/apt/parts"
folder=$(cd "$folder" && pwd)
apt=$folder/apt

if [ ! -s "$apt/sources.list" ]; then
    # deb822 (`URIs:`) first, then one-line entries; the archive itself ends in /debian, the security one does not.
    uri=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\/debian\)\/\{0,1\}[[:space:]]*$/\1/p' | head -n 1)
    if [ -z "$uri" ]; then
        uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
            | sed -n 's/^deb[[:space:]]*\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\/debian\)\/\{0,1\}[[:space:]].*/\2/p' | head -n 1)
    fi
    if [ -z "$uri" ]; then
        echo "fetch_debian: no Debian archive in this machine's apt configuration; put the program on PATH instead" >&2
        exit 3
    fi
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" > "$apt/sources.list"
fi

options="-o Dir::Etc::sourcelist=$apt/sources.list -o Dir::Etc::sourceparts=$apt/parts -o Dir::State::lists=$apt/lists -o Dir::Cache=$apt/cache
  -o APT::Get::List-Cleanup=0 -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 -o APT::Sandbox::User="
# shellcheck disable=SC2086 # the options are words
apt-get $options -qq update
cd "$apt"
for package in "$@"; do
    # shellcheck disable=SC2086
    apt-get $options -qq download "$package"
    for deb in "$apt/$package"_*.deb; do dpkg -x "$deb" "$folder"; done
done
