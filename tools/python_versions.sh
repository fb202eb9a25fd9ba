#!/usr/bin/env bash
# Every Python that the metadata promises, in environments that are kept between runs: `make python-versions`.
#
# For each version: the wheel alone, without extras, in an environment of its own, trains on a CSV; then, with what
# developers have, the demo and the unit tests, two cases of each parametrised one: what differs between versions of Python
# shows in any case. The index's torch for 3.13 is the CUDA build, which imports only with its libraries (3 GB), hence the
# cache: V6_ALGORITHM_CACHE, or v6-algorithm in the user's cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("${@:-3.13}")
cache="${V6_ALGORITHM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/v6-algorithm}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# An interpreter of that version: on the path, or one that pyenv keeps aside.
find_python() {
    local found
    for found in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$found"
            return
        fi
    done
    echo "no Python $1 on this machine: install it, or name the versions that are here, as in: $0 3.11" >&2
    return 1
}

for version in "${versions[@]}"; do
    python="$(find_python "$version")"
    stamp="$(cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)"
    for kind in bare dev; do
        home="$cache/python-$version-$kind"
        if [ "$(cat "$home/stamp" 2>/dev/null)" != "$stamp" ]; then
            echo "Python $version, $kind: installing into $home ..."
            rm -rf "$home"
            "$python" -m venv "$home"
            pip=("$home/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt)
            "${pip[@]}" torch
            # The project itself comes from its wheel below; here what it needs.
            if [ "$kind" = bare ]; then "${pip[@]}" .; else "${pip[@]}" '.[dev]'; fi
            echo "$stamp" > "$home/stamp"
        fi
        "$home/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/$version-$kind" .
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
            "$work/$version-$kind"/*.whl
    done

    mkdir -p "$work/$version"
    "$cache/python-$version-bare/bin/python" - "$work/$version" <<'PYTHON'
import random, sys
random.seed(1)
for site in ("a", "b"):
    rows = [[random.gauss(0, 1) for _ in range(3)] for _ in range(60)]
    lines = [",".join([*(f"{value:.4f}" for value in row), str(int(sum(row) > 0))]) for row in rows]
    open(f"{sys.argv[1]}/{site}.csv", "w").write("\n".join(["x1,x2,x3,y", *lines]) + "\n")
open(f"{sys.argv[1]}/own.yaml", "w").write(
    "name: own\nsites: {a: {uri: a.csv}, b: {uri: b.csv}}\ndata: {target: y}\nmodel: {kind: mlp, hidden: [8]}\nrounds: 3\n"
)
PYTHON
    # Away from the checkout, whose own package would be found before the wheel's.
    echo "Python $version: the wheel alone trains on a CSV"
    (cd "$work/$version" && "$cache/python-$version-bare/bin/v6-algorithm" run own.yaml --out result)
    test -s "$work/$version/result/result.json"
    echo "Python $version: the demo"
    (cd "$work/$version" && "$cache/python-$version-dev/bin/v6-algorithm" run "$OLDPWD/mock/breast_cancer.yaml" --out demo)
    echo "Python $version: the unit tests"
    V6_TEST_FEW=1 OMP_NUM_THREADS=1 "$cache/python-$version-dev/bin/python" -m pytest -n auto --dist loadfile -p no:cacheprovider \
        -m "not slow and not network and not docker"
done
