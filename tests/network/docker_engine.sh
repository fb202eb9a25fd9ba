#!/usr/bin/env bash
# A Docker engine and a Python base image on a machine that has neither a daemon nor a container registry.
# Called by build_image.sh and by the tests marked `docker`. Safe to run again: each step is left out when it is done.
#
#   docker_engine.sh          install, start and import what is missing; the last line says what there is
#   docker_engine.sh stop     end the dockerd that this script started; one that someone else started is left alone
#
# V6_BASE_IMAGE=NAME uses that image as the base instead of building one. Exit 3: it cannot be done here, and why.
set -euo pipefail

# shellcheck source=packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

BASE_IMAGE="${V6_BASE_IMAGE:-v6-python-base:bookworm}"
SUITE=bookworm # Python 3.11, as in the Dockerfile's default base
PID_FILE="$CACHE/dockerd.pid"
LOG_FILE="$CACHE/dockerd.log"
START_TIMEOUT_S=60

answers() { docker info >/dev/null 2>&1; }

# Whether the dockerd that this script started is still there.
ours() { [ -s "$PID_FILE" ] && [ "$(cat "/proc/$(cat "$PID_FILE")/comm" 2>/dev/null)" = dockerd ]; }

start_engine() {
  answers && return
  install_packages docker:docker.io dockerd:docker.io iptables:iptables
  [ "$(id -u)" = 0 ] || impossible "no Docker engine answers, and only root can start dockerd"
  ours || rm -f "$PID_FILE" # of an earlier boot: dockerd would not start if another process had that number now
  PATH="$PATH:/usr/sbin:/sbin" setsid nohup dockerd --pidfile "$PID_FILE" >"$LOG_FILE" 2>&1 </dev/null &
  for _ in $(seq "$START_TIMEOUT_S"); do
    answers && return
    sleep 1
  done
  impossible "dockerd did not answer within $START_TIMEOUT_S s; see $LOG_FILE"
}

stop_engine() {
  ours || { echo "docker_engine: nothing that was started from here is running"; return; }
  local pid
  pid="$(cat "$PID_FILE")"
  kill "$pid"
  while [ -d "/proc/$pid" ]; do sleep 0.2; done
  echo "docker_engine: stopped"
}

# Debian in a tarball, shaped like the official slim image as far as a Dockerfile can see: `python`, `pip`, no
# externally-managed marker. The machine's CA bundle goes in, so that a build reaches the registries this machine reaches.
import_base() {
  docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 && return
  [ -z "${V6_BASE_IMAGE:-}" ] || impossible "V6_BASE_IMAGE names $BASE_IMAGE, which this Docker engine does not have"
  local tarball="$CACHE/python-base-$SUITE.tar.gz" root
  if [ ! -s "$tarball" ]; then
    install_packages debootstrap:debootstrap
    [ "$(id -u)" = 0 ] || impossible "debootstrap needs root to build $BASE_IMAGE"
    root="$(mktemp -d "$CACHE/rootfs.XXXXXX")"
    debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates "$SUITE" "$root" \
      >"$CACHE/debootstrap.log" 2>&1 || impossible "debootstrap failed; see $CACHE/debootstrap.log"
    ln -s python3 "$root/usr/bin/python"
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
      "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/var/log/*.log
    if [ -s "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ]; then
      cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    tar -C "$root" -c . | gzip -1 >"$tarball.part"
    mv "$tarball.part" "$tarball"
    rm -rf "$root"
  fi
  docker import --change 'CMD ["python3"]' "$tarball" "$BASE_IMAGE" >/dev/null
}

case "${1:-start}" in
  start)
    exec 9>"$CACHE/docker_engine.lock"
    flock 9
    start_engine 9>&-
    import_base
    echo "docker_engine: $(docker version --format 'server {{.Server.Version}}'), $(docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$BASE_IMAGE")"
    ;;
  stop) stop_engine ;;
  *) impossible "unknown word '$1'; use start or stop" ;;
esac
