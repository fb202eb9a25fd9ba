#!/usr/bin/env bash
# A private PostgreSQL for the tests: its own cluster in a folder of its own, run by an unprivileged user. Whatever other
# clusters this machine has are left alone. Called by the fixture `postgres`.
#
#   V6_POSTGRES_PASSWORD=… postgres.sh start PORT [ADDRESS …]    listens on 127.0.0.1 and the addresses given; the user is
#                                                                 `v6`, the database `v6`. Prints the cluster's folder.
#   postgres.sh stop FOLDER                                       ends that cluster and removes its folder
#
# Exit 3: it cannot be done here, and why.
set -euo pipefail
# shellcheck source=packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

NAME=v6

programs() { find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1; }

install_postgres() {
  [ -z "$(programs)" ] || return 0
  if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    # Else the package makes a cluster on port 5432, and starts it.
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
  install_packages initdb:postgresql
}

# PostgreSQL refuses to run as root; the package comes with a user for it.
unprivileged() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

start() {
  local port="$1" folder
  shift
  [ -n "${V6_POSTGRES_PASSWORD:-}" ] || impossible "set V6_POSTGRES_PASSWORD"
  install_postgres
  cd / # the other user need not be able to enter where this was called
  folder="$(unprivileged mktemp -d /tmp/v6-postgres.XXXXXX)"
  # A file in a folder of that user's own: a password among the arguments would be in the list of processes.
  printf '%s\n' "$V6_POSTGRES_PASSWORD" | unprivileged tee "$folder/password" >/dev/null
  unprivileged "$(programs)/initdb" --pgdata "$folder/data" --username "$NAME" --pwfile "$folder/password" \
    --auth scram-sha-256 --encoding UTF8 --no-locale --no-sync >"$folder/initdb.log" 2>&1 ||
    { cat "$folder/initdb.log" >&2; exit 1; }
  rm "$folder/password"
  echo "host all all all scram-sha-256" | unprivileged tee -a "$folder/data/pg_hba.conf" >/dev/null
  printf '%s\n' "listen_addresses = '$(IFS=,; echo "127.0.0.1${*:+,$*}")'" "port = $port" \
    "unix_socket_directories = ''" "fsync = off" "log_statement = none" |
    unprivileged tee -a "$folder/data/postgresql.conf" >/dev/null
  unprivileged "$(programs)/pg_ctl" start --pgdata "$folder/data" --log "$folder/log" --timeout 120 --wait >/dev/null ||
    { unprivileged cat "$folder/log" >&2; exit 1; }
  PGPASSWORD="$V6_POSTGRES_PASSWORD" "$(programs)/createdb" --host 127.0.0.1 --port "$port" --username "$NAME" "$NAME"
  echo "$folder"
}

stop() {
  case "$1" in /tmp/v6-postgres.*) ;; *) impossible "$1 is no folder of this script" ;; esac
  cd /
  unprivileged "$(programs)/pg_ctl" stop --pgdata "$1/data" --mode immediate --wait >/dev/null || true
  rm -rf "$1"
}

case "${1:-}" in
  start) start "${@:2}" ;;
  stop) stop "$2" ;;
  *) impossible "use: start PORT [ADDRESS …] | stop FOLDER" ;;
esac
