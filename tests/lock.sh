#!/bin/sh
# Writes the development lock file from pyproject.toml: exact versions, each with its hashes.
# The output names no index: whoever installs uses the one that pip is configured with.
set -eu
lock=$1
new=$(mktemp)
trap 'rm -f "$new"' EXIT
cat >"$new" <<'HEAD'
# Exact versions and hashes of everything that `make setup` installs. Written by `make lock`.
#
# torch is missing on purpose: its CPU build comes from another index than its CUDA build, under
# the same version and with other hashes. constraints.txt pins it, and what it needs is below.
HEAD
resolved=$(mktemp)
trap 'rm -f "$new" "$resolved"' EXIT
# Starts from the present lock file, so that only what must change does.
[ ! -e "$lock" ] || cp "$lock" "$resolved"
"${PIP_COMPILE:-pip-compile}" --quiet --generate-hashes --strip-extras --all-extras \
    --no-header --no-emit-options --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --allow-unsafe --unsafe-package torch \
    --constraint constraints.txt --output-file "$resolved" pyproject.toml
sed '/^# The following packages/,$d' "$resolved" >>"$new"
cp "$new" "$lock"
