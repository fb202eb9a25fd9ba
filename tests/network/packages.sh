# What the scripts beside this file share: where they keep things, and Debian packages where root can install them.
# Sourced by docker_engine.sh, postgres.sh and registry.sh.

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/v6-algorithm"
mkdir -p "$CACHE"

# Exit 3: it cannot be done on this machine, and why.
impossible() {
  echo "$(basename "$0" .sh): $*" >&2
  exit 3
}

# apt-get, one at a time: of two test runs side by side (`make network`) one would meet its locks, and fail.
apt_get() {
  (
    flock 7
    DEBIAN_FRONTEND=noninteractive apt-get "$@" 7>&- # a daemon that a package starts would keep the lock
  ) 7>"$CACHE/apt.lock"
}

# Install the packages of those commands that are not there. Arguments: COMMAND:PACKAGE
install_packages() {
  local wanted=() pair
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || wanted+=("${pair##*:}")
  done
  [ ${#wanted[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || impossible "missing ${wanted[*]}, and only root can install them"
  command -v apt-get >/dev/null || impossible "missing ${wanted[*]}, and there is no apt-get to install them"
  { apt_get update && apt_get install -y --no-install-recommends "${wanted[@]}"; } \
    >"$CACHE/apt.log" 2>&1 || impossible "apt-get could not install ${wanted[*]}; see $CACHE/apt.log"
}
