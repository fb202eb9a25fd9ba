"""Package metadata. Kept as setup.py because vantage6 algorithm images install with `pip install .`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = (HERE / "v6_algorithm" / "VERSION").read_text().strip()

EXTRAS = {
    # What a container or the mock client needs. Not pinned exactly: the tools pin a dozen packages themselves.
    "vantage6": ["vantage6-algorithm-tools>=4.15,<5", "vantage6-client>=4.15,<5"],
    "dp": ["opacus>=1.5"],
    "imaging": ["monai>=1.5", "nibabel>=5", "pillow>=10", "pydicom>=3"],
    "tracking": ["tensorboard>=2.17"],
    "wandb": ["wandb>=0.18"],
    "profiling": ["pyinstrument>=5"],
    # The plots of `output.dinunet` as PNG.
    "plots": ["matplotlib>=3.8"],
    # The data sets behind `source: builtin:…`.
    "demo": ["scikit-learn>=1.4"],
    "files": ["pyarrow>=15", "openpyxl>=3.1"],
}
EXTRAS["dev"] = [
    *EXTRAS["vantage6"],
    *EXTRAS["demo"],
    *EXTRAS["files"],
    *EXTRAS["imaging"],
    *EXTRAS["tracking"],
    *EXTRAS["profiling"],
    *EXTRAS["plots"],
    "vantage6>=4.15,<5",
    # Its schema is what algorithm_store.json is tested with; it needs the second and does not ask for it.
    "vantage6-algorithm-store>=4.15,<5",
    "vantage6-backend-common>=4.15,<5",
    "hypothesis>=6.100",
    # Survival metrics and losses are held against it.
    "lifelines>=0.30",
    "mypy>=1.10",
    "pandas-stubs",
    "pytest>=8",
    "pytest-timeout>=2.3",
    # `make test` uses as many processes as there are cores.
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "types-PyYAML",
]

setup(
    name="v6-algorithm",
    version=VERSION,
    description="Federated deep learning for biomedical data, as one vantage6 algorithm",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["v6_algorithm", "v6_algorithm.*"]),
    package_data={"v6_algorithm": ["VERSION", "py.typed"]},
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "pandas>=2.0",
        "safetensors>=0.4.3",
        # base64 of tens of megabytes, several times faster than the standard library's.
        "pybase64>=1.4",
        "pydantic>=2.7,<3",
        "pyyaml>=6",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["v6-algorithm=v6_algorithm.researcher.cli:main"],
    },
)
