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

pythons() { # NAME…: every python of these names
    for name in "$@"; do
        case $name in */*) echo "$name" && continue ;; esac
        printf '%s\n' "$PATH" | tr ':' '\n' | while IFS= read -r folder; do
            case $folder in "$venv" | "$venv"/*) continue ;; esac # it is made anew
            if [ -x "$folder/$name" ]; then echo "$folder/$name"; fi
        done
    done
}

pace() { # PYTHON MINOR: microseconds that it takes for a small piece of work, best of many; fails beyond 3.MINOR
    "$1" -I -S -c '
import sys, time
if sys.version_info[:2] > (3, int(sys.argv[1])):
    sys.exit(1)
class Record:
    __slots__ = ("name", "number")
    def __init__(self, name, number):
        self.name, self.number = name, number
def work():
    began, found = time.perf_counter(), {}
    for number in range(5000):
        record = Record(str(number), number)
        if record.number % 3:
            found[record.name] = record.number
    return time.perf_counter() - began
print(round(1e6 * min(work() for _ in range(60))))
' "$2"
}

fastest() { # MODULE MINOR NAME…: of the fitting pythons that have it. How one was built decides more than its version
    module=$1 minor=$2
    shift 2
    { pythons "$@" && pythons "$@"; } | while IFS= read -r each; do
        if fit "$each" venv "$module" </dev/null && speed=$(pace "$each" "$minor" </dev/null 2>/dev/null); then
            echo "$speed $each"
        fi
    done | grep '^[0-9][0-9]* .' | sort -n | sed -n '1s/^[0-9]* //p'
}

find_python() { # MODULE: sets $base
    base=$(fastest "$1" 13 ${PYTHON:-python3.13 python3.12 python3.11 python3})
    [ -n "$base" ] || base=$(fastest "$1" 99 ${PYTHON:-python3 python3.14 python3.15}) # not tried with our packages
    [ -n "$base" ]
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
    say "new environment in .venv with $("$base" -c 'import sys; print(sys.executable, sys.version.split()[0])')," \
        "the fastest of ${PYTHON:-those on the path (PYTHON=… names others)}"
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
