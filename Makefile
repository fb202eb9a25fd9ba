# Two commands on a fresh machine: `make demo`, which installs what a run needs, and `make test`, which installs what tests need.
# On Linux without a GPU torch comes from its CPU index, which saves some gigabytes; TORCH_INDEX= (empty) takes PyPI's. Whoever
# has wheels or indexes of their own configured for pip keeps to those.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CPU_INDEX = https://download.pytorch.org/whl/cpu
NO_GPU = $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi > /dev/null 2>&1 && echo yes)
TORCH_INDEX ?= $(if $(PIP_FIND_LINKS)$(PIP_INDEX_URL)$(PIP_EXTRA_INDEX_URL),,$(if $(NO_GPU),$(CPU_INDEX)))
VARIANT ?= cpu

.PHONY: axe axe-docs demo docs setup test test-slow network network-processes network-docker python-versions house lint format image push clean

demo: $(VENV)/.demo ## train on real data at three hospitals, and show what came out
	@echo "training on scikit-learn's breast cancer table, cut into three hospitals: together, in one place, and each alone ..."
	$(BIN)/v6-algorithm run mock/breast_cancer.yaml --baselines --out runs/demo --force
	@echo "report: runs/demo/report.html; next, with tables of your own: docs/quickstart.md"

setup: $(VENV)/.ready

# torch first: what comes later must find it, not choose a build of its own.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing this package, torch$(if $(TORCH_INDEX), (CPU),) and scikit-learn into $(VENV), some 300 MB; once ..."
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.ready: $(VENV)/.demo
	@echo "installing what tests, style, docs and a local vantage6 need, a few minutes; once ..."
	$(PIP) -e '.[dev]'
	@touch $@

# Compiled files are kept, also where the environment says otherwise: pytest's rewritten tests and the package are else compiled
# anew by each process, nine seconds of each worker's start and a quarter of the import at a site.
export PYTHONDONTWRITEBYTECODE =

# A process for each core, so one thread for each: threads that wait for each other take a quarter more time.
test test-slow: export OMP_NUM_THREADS = 1

test: setup ## the everyday tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not network and not docker"

test-slow: setup ## the tests that take longer, without a network
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow and not network and not docker"

# They share no server, node or port. What one of them printed comes when it is done; either failing fails both.
network: setup ## a real vantage6 server and nodes on this machine, as processes and with Docker, both at once
	+$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target network-processes network-docker

network-processes: setup ## the tests whose nodes run algorithms as processes
	$(BIN)/python -m pytest tests/network -m "network and not docker"

# Containers have a thread for each core, so what they are compared with has too: the last bits depend on it.
network-docker: setup ## the tests whose nodes run algorithms in containers
	env -u OMP_NUM_THREADS $(BIN)/python -m pytest tests/network -m docker

python-versions: ## the unit tests (two cases of each), the demo and the wheel alone on Python 3.13; VERSIONS="3.11 3.12 3.13" for others
	tools/python_versions.sh $(or $(VERSIONS),3.13)

house: ## the wings of the package, their lines, and who imports whom
	$(PYTHON) -m tools.house

docs: setup ## the docs site in build/site; a link or an anchor that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site: build/site/index.html"

axe: ## what tests/researcher/report/test_accessibility.py needs beside Chromium: axe-core and a driver of the browser, by npm
	@command -v npm > /dev/null && npm ci --prefix tools/axe --no-audit --no-fund --loglevel error || echo "no npm: reports are not looked at"

axe-docs: docs axe ## all pages of the docs site at two widths, light, dark and on paper; two minutes (the tests look at three)
	node tools/axe/axe.mjs $$(find build/site -name '*.html' ! -name 404.html | sort)

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

image: setup ## the algorithm's image, built and tried; VARIANT=cuda for GPUs; BASE_IMAGE and TORCH_INDEX as in the Dockerfile
	$(BIN)/v6-algorithm image build --variant $(VARIANT) $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE)) \
	  $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
	$(BIN)/v6-algorithm image test --variant $(VARIANT)

push: setup ## make push REGISTRY=host/path: those of the two images that are built
	$(BIN)/v6-algorithm image push $(or $(REGISTRY),$(error REGISTRY is not given: make push REGISTRY=host/path))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
