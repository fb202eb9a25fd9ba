#!/usr/bin/env bash
# A container registry on loopback, which Docker needs no setting for. Debian's docker-registry, unpacked in the cache and
# not installed: no root, no service that would start by itself. Called by the fixture `registry`.
#
#   registry.sh start FOLDER PORT    serves what is pushed from FOLDER, which may be empty; prints the address
#   registry.sh stop FOLDER          ends the registry that serves FOLDER; what was pushed stays there
#
# Exit 3: it cannot be done here, and why.
set -euo pipefail
# shellcheck source=packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

PROGRAM="$CACHE/docker-registry/usr/bin/docker-registry"
START_TIMEOUT_S=60

unpack_registry() {
  [ ! -x "$PROGRAM" ] || return 0
  command -v apt-get >/dev/null || impossible "missing docker-registry, and there is no apt-get to fetch it with"
  local folder
  folder="$(mktemp -d "$CACHE/docker-registry.XXXXXX")"
  {
    [ "$(id -u)" != 0 ] || apt_get update || true # what is known of an earlier update may do
    (cd "$folder" && apt-get download docker-registry && dpkg-deb -x docker-registry_*.deb root)
  } >"$CACHE/apt.log" 2>&1 || impossible "apt-get could not fetch docker-registry; see $CACHE/apt.log"
  rm -rf "$CACHE/docker-registry"
  mv "$folder/root" "$CACHE/docker-registry"
  rm -rf "$folder"
}

start() {
  local folder="$1" port="$2"
  unpack_registry
  mkdir -p "$folder"
  cat >"$folder/config.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "$folder/data"}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$port"}
YAML
  setsid nohup "$PROGRAM" serve "$folder/config.yml" >"$folder/log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  for _ in $(seq "$((START_TIMEOUT_S * 5))"); do
    if (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "127.0.0.1:$port"
      return
    fi
    kill -0 "$(cat "$folder/pid")" 2>/dev/null || break
    sleep 0.2
  done
  cat "$folder/log" >&2
  impossible "docker-registry did not answer on 127.0.0.1:$port"
}

stop() {
  local pid
  pid="$(cat "$1/pid" 2>/dev/null)" || impossible "no registry was started with $1"
  # The number may be another program's by now.
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != docker-registry ] || kill "$pid"
  rm -f "$1/pid"
}

case "${1:-}" in
  start) start "$2" "$3" ;;
  stop) stop "$2" ;;
  *) impossible "use: start FOLDER PORT | stop FOLDER" ;;
esac
