#!/bin/sh
# Run the tests under each supported Python that this machine has, each in an environment of its own.
set -u
versions=
for version in 3.11 3.12 3.13; do
    python=
    # pyenv's shims are on PATH for versions that are installed but not chosen: only one that runs counts.
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if "$candidate" -c 'import venv' >/dev/null 2>&1; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then echo "python$version: not on this machine"; continue; fi
    versions="$versions $version"
    echo "== python$version ($python)"
    if ! make test PYTHON="$python" VENV=".venv-$version" ARGS="$*"; then failed="${failed-} $version"; fi
done
if [ -z "$versions" ]; then echo "no supported Python found" >&2; exit 2; fi
if [ -n "${failed-}" ]; then echo "failed under:$failed" >&2; exit 1; fi
echo "passed under:$versions"
