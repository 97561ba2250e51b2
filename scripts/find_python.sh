#!/bin/sh
# Print the first Python that can make this project's environment.
#
#   scripts/find_python.sh                   python3.13, 3.12, 3.11, 3.10 or python3, whichever runs
#   scripts/find_python.sh 3.12              one of that version
#   scripts/find_python.sh --version PYTHON  print its version (3.12); fails if it won't do
#
# A candidate has to run: a pyenv shim may exist and refuse to, and Debian's python3 comes without
# ensurepip until python3-venv is installed.
set -u

# Prints X.Y if $1 is a Python in range that has venv.
version_of() {
    "$1" -c '
import sys
if not (3, 10) <= sys.version_info < (3, 14):
    sys.exit(1)
import ensurepip, venv
print("%d.%d" % sys.version_info[:2])
' 2>/dev/null
}

# Commands named python$1; where one version is asked for, pyenv's too, even with its shim switched off.
candidates() {
    echo "python$1"
    if [ -n "$wanted" ] && command -v pyenv >/dev/null 2>&1; then
        ls -d "$(pyenv root)/versions/$1".*/bin/python 2>/dev/null
    fi
}

if [ "${1-}" = "--version" ]; then
    version_of "$2"
    exit
fi

wanted=${1-}
for version in ${wanted:-3.13 3.12 3.11 3.10}; do
    for candidate in $(candidates "$version"); do
        if [ "$(version_of "$candidate")" = "$version" ]; then
            echo "$candidate"
            exit 0
        fi
    done
done
if [ -z "$wanted" ] && version_of python3 >/dev/null; then
    echo python3
    exit 0
fi

if command -v python3 >/dev/null 2>&1 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "python3 has no venv. On Debian: apt-get install python3-venv" >&2
fi
echo "No Python ${wanted:-3.10-3.13} with venv found. Install one, or name it: make PYTHON=/path/to/python ..." >&2
exit 1
