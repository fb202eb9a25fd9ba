# The algorithm image: `master` and the RPC_ functions of v6_algorithm, run by vantage6's wrapper.
#
#   v6-algorithm image build [--variant cuda] [--vantage6 5]   fills in the arguments below
#   docker build -t v6-algorithm [--build-arg VARIANT=cuda] .  the same by hand, without revision and date
#   docker build -t v6-algorithm:5 --build-arg VANTAGE6=5 --build-arg VANTAGE6_VERSION=5.0.3 \
#     --build-arg BASE_IMAGE=python:3.13-slim-bookworm .       for vantage6 5, whose tools want Python 3.13
#
# Researchers add problems and networks in an image of their own: `FROM v6-algorithm`, then `RUN pip install my-package`.
# The classic builder and BuildKit both build this; nothing here needs BuildKit.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# pip sees these while the image is built; an ARG leaves no trace in the environment of a container.
# cpu or cuda. TORCH_INDEX is where its torch is looked for besides pip's default index, which has a CUDA build.
ARG VARIANT=cpu
# 4 or 5. Both install the same names, so an image has one.
ARG VANTAGE6=4
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=
ARG PIP_CERT=
# Of a base image with another Python than the tools of vantage6 5 ask for, as in our tests.
ARG PIP_IGNORE_REQUIRES_PYTHON=

# Dependencies first: a change of our own code leaves this layer, nearly all of the image, as it is on every node. The
# package is an empty one for now, lest a line of the README or a new version number rebuild it.
COPY pyproject.toml setup.py constraints.txt constraints-vantage6-5.txt LICENSE /src/
RUN set -eu; \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    # Named with its variant, lest an index that does not answer end in gigabytes of CUDA in an image called cpu.
    case "${VARIANT}" in \
        cpu) torch="${TORCH_VERSION%+cpu}+cpu"; index="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" ;; \
        cuda) torch="${TORCH_VERSION}"; index="${TORCH_INDEX}" ;; \
        *) echo "VARIANT=${VARIANT}: allowed: cpu, cuda" >&2; exit 1 ;; \
    esac; \
    case "${VANTAGE6}" in \
        4) extra=vantage6; tools=decorators; cat /src/constraints.txt > /tmp/pins.txt ;; \
        5) extra=vantage6-5; tools=exceptions; \
            { grep -v -e '^vantage6' -e '^cryptography' /src/constraints.txt; cat /src/constraints-vantage6-5.txt; } > /tmp/pins.txt ;; \
        *) echo "VANTAGE6=${VANTAGE6}: allowed: 4, 5" >&2; exit 1 ;; \
    esac; \
    sed "s/^torch==.*/torch==${torch}/" /tmp/pins.txt > /tmp/constraints.txt; \
    mkdir /src/v6_algorithm; echo 0 > /src/v6_algorithm/VERSION; touch /src/README.md /src/v6_algorithm/__init__.py; \
    pip install --use-pep517 ${index:+--extra-index-url "$index"} -c /tmp/constraints.txt "/src[${extra},files,imaging]"; \
    pip uninstall --yes v6-algorithm; \
    # What only a C++ compiler or the libraries' own test suites would read, and Arrow's RPC; about 280 MB.
    site="$(python -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')"; \
    rm -rf "$site"/torch/include "$site"/torch/test "$site"/torch/share "$site"/torch/bin/test_* \
        "$site"/torch/bin/protoc* "$site"/torch/lib/lib*_test.so "$site"/nvidia/*/include \
        "$site"/pyarrow/include "$site"/pyarrow/tests "$site"/pyarrow/*flight* "$site"/pandas/tests; \
    find "$site" -name '*.a' -delete; \
    find "$site/numpy" "$site/sympy" "$site/networkx" -type d -name tests -prune -exec rm -rf {} +; \
    rm -rf /src /tmp/* /root/.cache; \
    python -c 'import numpy.testing, openpyxl, pandas, pyarrow.dataset, pyarrow.fs, pyarrow.parquet; \
        import gdcm, h5py, monai.networks.nets, nibabel, nrrd, PIL.Image, pydicom; \
        import safetensors.torch, sympy, torch; from vantage6.algorithm.tools import wrap'; \
    python -c "from vantage6.algorithm.tools import ${tools}"

ARG PKG_NAME=v6_algorithm
ARG VERSION=0.2.0
ARG VANTAGE6_VERSION=4.15.2
COPY . /src
# The labels below repeat what is installed: a build whose arguments say otherwise ends here.
RUN pip install --no-cache-dir --no-deps --root-user-action=ignore /src \
    && rm -rf /src /tmp/* /root/.cache \
    && python -c "import importlib, torch; from importlib.metadata import version; \
        importlib.import_module('${PKG_NAME}'); \
        said = '${VARIANT}', '${VERSION}', '${VANTAGE6_VERSION}'; \
        is_so = 'cuda' if torch.version.cuda else 'cpu', version('v6-algorithm'), version('vantage6-algorithm-tools'); \
        assert said == is_so, f'VARIANT, VERSION, VANTAGE6_VERSION are {is_so}, the build arguments say {said}'"

# vantage6's wrapper runs every variable through a base32 decoder: a value of A-Z and 2-7 only would reach the algorithm
# garbled. Unbuffered, or a node shows the log only when the run has ended.
ENV PKG_NAME=${PKG_NAME} PYTHONUNBUFFERED=1

ARG SOURCE=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="v6_algorithm" \
      org.opencontainers.image.description="Federated deep learning for biomedical data" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      vantage6.version="${VANTAGE6_VERSION}" \
      v6-algorithm.variant="${VARIANT}"

# Root, because the node makes the input, output and token files as root.
CMD ["python", "-c", "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"]
