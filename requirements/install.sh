#!/bin/sh
# Make .venv hold exactly what requirements/dev.txt lists, and this project as an editable install.
# Nothing but Python 3.11 or newer is needed. An interrupted run is healed by the next one.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venv
lock=requirements/dev.txt

say() { echo "install: $*" >&2; }

fit() { # PYTHON [MODULE…]: does it run, is it new enough, has it these modules
    python=$1
    shift
    command -v "$python" >/dev/null 2>&1 || return 1
    "$python" -c '
import importlib.util, sys
sys.exit(sys.version_info < (3, 11) or any(not importlib.util.find_spec(name) for name in sys.argv[1:]))
' "$@" >/dev/null 2>&1
}

find_python() { # MODULE: sets $base to the first fitting python that has it
    for base in ${PYTHON:-python3.13 python3.12 python3.11 python3 python3.14 python3.15}; do
        if fit "$base" venv "$1"; then return 0; fi
    done
    return 1
}

refuse() {
    for base in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if fit "$base"; then
            say "$base has neither ensurepip nor pip: install them (Debian, Ubuntu: apt-get install python3-venv)"
            exit 2
        fi
    done
    say "needs Python 3.11 or newer; tried: ${PYTHON:-python3.13 python3.12 python3.11 python3}"
    exit 2
}

whole() { # is .venv a completely made environment of this very folder
    [ -e "$venv/.made" ] && fit "$venv/bin/python" &&
        [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" = "$venv" ]
}

make_venv() {
    options=
    find_python ensurepip || { find_python pip && options=--without-pip; } || refuse
    say "new environment in .venv with $("$base" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
    rm -rf "$venv"
    "$base" -m venv $options "$venv"
    touch "$venv/.made"
}

pip_install() { # with the environment's pip, else with one that another python lends
    if fit "$venv/bin/python" pip; then
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@"
    else
        find_python pip || refuse
        "$base" -m pip --python "$venv/bin/python" install --disable-pip-version-check --no-input "$@"
    fi
}

# Only the lines that say what comes over the wire; that pip failed is told by a file, for a pipe hides it.
install_packages() {
    failed=$venv/.pip-failed
    rm -f "$failed"
    { pip_install --progress-bar off --only-binary :all: --require-hashes -r "$lock" 2>&1 || touch "$failed"; } |
        sed -n -e 's/^ *Downloading \([^ ]*\) (\(.*\))$/  \1  \2/p' -e '/rror/p' >&2
    [ ! -e "$failed" ]
}

whole || make_venv
say "$(grep -c '==' "$lock") packages, about 150 MB to download unless pip has them already"
if ! install_packages; then
    say "pip could not install $lock (see above); run it again: what has been downloaded is kept"
    exit 2
fi
pip_install -q --no-build-isolation --no-deps --no-index -e .
say "done"
