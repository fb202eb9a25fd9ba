#!/usr/bin/env bash
# Builds the algorithm image from this checkout on a machine without a container registry. Called by the tests marked `docker`.
#
#   build_image.sh [TAG]        default tag: v6-algorithm:test; PYTHON names one with this package's dependencies
#   VANTAGE6=5 build_image.sh   for vantage6 5, on the same base: there is no image with Python 3.13 here, and 3.11 does
#
# It is `v6-algorithm image build` with a base image that needs no registry. CPU torch comes from TORCH_INDEX when that is
# set, else from a folder of wheels that pip is configured to look in (PIP_FIND_LINKS or `pip config`), served on loopback
# while the build runs, so that no wheel stays in a layer; without either, from where the Dockerfile says.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
TAG="${1:-v6-algorithm:test}"
BASE_IMAGE="${V6_BASE_IMAGE:-v6-python-base:bookworm}"
PYTHON="${PYTHON:-$ROOT/.venv/bin/python}"
PORT=38417 # of the loopback index; the same each time, since the address is part of what Docker's cache goes by
TORCH_VERSION="$(sed -n 's/^torch==//p' "$ROOT/constraints.txt")"

VANTAGE6="${VANTAGE6:-4}"
[ "$VANTAGE6" = 4 ] || export PIP_IGNORE_REQUIRES_PYTHON=1

"$HERE/docker_engine.sh"

# One build at a time: a second would need another port for its index, and so miss the layer that Docker keeps.
exec 8>"${XDG_CACHE_HOME:-$HOME/.cache}/v6-algorithm/build_image.lock"
flock 8

server_pid=""
index=""
cleanup() {
  [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
  [ -z "$index" ] || rm -rf "$index"
}
trap cleanup EXIT

wheel_folders() {
  printf '%s\n' ${PIP_FIND_LINKS:-}
  "$PYTHON" -m pip config list 2>/dev/null | sed -n "s/^.*find-links='\(.*\)'$/\1/p" | tr ' ' '\n'
}

# A PEP 503 index of one project: a folder `torch` that lists the wheels.
serve_local_torch() {
  local folder wheel port
  index="$(mktemp -d)"
  mkdir "$index/torch"
  while read -r folder; do
    for wheel in "$folder"/torch-"$TORCH_VERSION"*.whl; do
      [ -f "$wheel" ] && ln -sf "$wheel" "$index/torch/"
    done
  done < <(wheel_folders | sort -u)
  [ -n "$(ls "$index/torch")" ] || return 0
  # Port 0, any that is free, when another program has ours.
  for port in "$PORT" 0; do
    : >"$index/log"
    "$PYTHON" -u -m http.server "$port" --bind 127.0.0.1 --directory "$index" >"$index/log" 2>&1 &
    server_pid=$!
    while kill -0 "$server_pid" 2>/dev/null; do
      port="$(sed -n 's/^Serving HTTP on .* port \([0-9]*\) .*/\1/p' "$index/log")"
      if [ -n "$port" ]; then
        TORCH_INDEX="http://127.0.0.1:$port/"
        return
      fi
      sleep 0.1
    done
  done
  cat "$index/log" >&2
  exit 1
}

[ -n "${TORCH_INDEX:-}" ] || serve_local_torch

PYTHONPATH="$ROOT" "$PYTHON" -c 'from v6_algorithm.researcher.cli import main; main()' image build --source "$ROOT" --tag "$TAG" \
  --vantage6 "$VANTAGE6" --base-image "$BASE_IMAGE" ${TORCH_INDEX:+--torch-index "$TORCH_INDEX"}
# The image that had the tag before, and nothing else.
docker image prune --force --filter label=org.opencontainers.image.title=v6_algorithm >/dev/null
