#!/bin/sh
# Remake constraints/<version>.txt: what pip chooses today for .[dev] on each supported Python.
#
#   scripts/constraints.sh             every version
#   scripts/constraints.sh 3.12 3.13   only these
#
# Which index pip asks is its own business (environment, pip.conf); only `name==version` lines are kept,
# so that the files say nothing about the machine that made them.
set -eu

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13
for version; do
    python=$(sh scripts/find_python.sh "$version")
    echo "constraints/$version.txt with $python"
    "$python" -m venv "$work/venv-$version"
    pip="$work/venv-$version/bin/python -m pip"
    $pip install --quiet --disable-pip-version-check --editable ".[dev]"
    $pip freeze --exclude ray-qjm --exclude-editable >"$work/$version.txt"
    if grep -Ev '^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!]+$' "$work/$version.txt"; then
        echo "constraints.sh: the lines above are no plain name==version of a public release" >&2
        exit 1
    fi
    mkdir -p constraints
    cp "$work/$version.txt" "constraints/$version.txt"
    rm -rf "$work/venv-$version"
done
