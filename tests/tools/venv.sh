#!/bin/sh
# Make a virtual environment if there is none, and install into it what is not there yet:
#   venv.sh PYTHON FOLDER PIP-ARGUMENT...
set -eu
python=$1 folder=$2
shift 2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "meshlib needs Python 3.11 or newer; $python is $("$python" --version 2>&1 || echo missing). Name another: make PYTHON=python3.12 ..." >&2
    exit 2
fi
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    # Debian splits ensurepip off into python3-venv; where that is missing, the pip that is there fills the environment.
    "$python" -m venv "$folder" 2>/dev/null || {
        "$python" -m venv --without-pip --clear "$folder"
        "$python" -m pip --python "$folder/bin/python" install --quiet pip
    }
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Dependency groups (PEP 735) are known to pip since 25.1.
"$folder/bin/python" -m pip install --quiet "pip>=25.1"
"$folder/bin/python" -m pip install --quiet "$@"
