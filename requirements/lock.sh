#!/bin/sh
# Write the lock files: every package with its hashes, for every platform, and no address in them. Developers' tool.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
.venv/bin/python -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install -q --disable-pip-version-check 'uv>=0.13'

compile() { # OUTPUT [OPTION…]
    output=$1
    shift
    "$tools/venv/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        "$@" -o "$output" pyproject.toml
}

compile requirements/runtime.txt ${UPGRADE:+--upgrade}
compile requirements/dev.txt --group dev -c requirements/runtime.txt ${UPGRADE:+--upgrade}
.venv/bin/python -m billing.devstack.kafka_jars
