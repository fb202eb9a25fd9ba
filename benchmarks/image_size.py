"""What the algorithm's image is made of: bytes by package, measured in the image; the table of docs/image.md.

    python benchmarks/image_size.py [IMAGE] [--base IMAGE]

Sizes of packages are of their files, in powers of ten like `docker images`; compiled `.pyc` files are counted with
their package. What a package's files take is not what leaving it out would save: others need some of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess

from v6_algorithm.researcher.image.names import default_tag, own_version

# A package's folders and files, and why it is in the image. What no line names is counted as the rest.
ROWS = {
    "torch": (("torch", "torchgen", "functorch", "nvidia", "triton", "cuda", "cusparselt"), "trains"),
    "pyarrow": (("pyarrow",), "reads parquet, also from S3"),
    "sympy, networkx, mpmath": (("sympy", "networkx", "mpmath"), "torch loads them with its optimisers"),
    "pandas": (("pandas",), "reads every table"),
    "numpy": (("numpy",), "arrays; its OpenBLAS is half of it"),
    "SQLAlchemy, psycopg2": (("sqlalchemy", "psycopg2", "greenlet"), "SQL databases; vantage6's tools pin them"),
    "vantage6": (("vantage6", "pyfiglet", "qrcode"), "the wrapper, the tools and the client"),
    "cryptography": (("cryptography", "cffi", "_cffi_backend"), "encrypted collaborations, for vantage6's client"),
    "rdflib, SPARQLWrapper": (("rdflib", "SPARQLWrapper", "pyparsing"), "imported by vantage6's tools at their start"),
    "pydantic": (("pydantic", "annotated_types"), "checks the experiment"),
    "rich, typer": (("rich", "pygments", "typer", "click", "markdown_it"), "the command line, `doctor`"),
    "setuptools": (("setuptools", "pkg_resources", "_distutils_hack"), "torch asks for it"),
    "docker": (("docker",), "vantage6's common package asks for it"),
    "monai, nibabel, pillow, pydicom, pynrrd, h5py": (
        ("monai", "nibabel", "nisext", "PIL", "pillow", "pydicom", "nrrd", "h5py"),
        "networks and readers of images",
    ),
    "openpyxl": (("openpyxl", "et_xmlfile"), "reads excel files"),
    "safetensors, pybase64": (("safetensors", "pybase64"), "the parameters on the wire"),
    "v6_algorithm": (("v6_algorithm",), "this package"),
}
# Run in the image: bytes below each top-level name of site-packages, links not followed.
MEASURE = """
import json, os, torch
site = os.path.dirname(os.path.dirname(torch.__file__))
sizes = {}
for folder, _, files in os.walk(site):
    for name in files:
        path = os.path.join(folder, name)
        top = os.path.relpath(path, site).split(os.sep)[0]
        sizes[top] = sizes.get(top, 0) + os.lstat(path).st_size
print(json.dumps(sizes))
"""


def docker(*arguments: str) -> str:
    """Run Docker's client and return what it printed."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout  # noqa: S607


def row_of(name: str) -> str:
    """Return the row that a top-level name belongs to, as numpy for ``numpy.libs`` and ``numpy-2.4.6.dist-info``."""
    stem = name.split(".")[0].split("-")[0].removesuffix("_binary").lower()
    for title, (prefixes, _) in ROWS.items():
        if any(stem == prefix.lower() or stem.startswith(f"{prefix.lower()}_") for prefix in prefixes):
            return title
    return "the rest"


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", default=default_tag(own_version(), "cpu"))
    parser.add_argument("--base", default="python:3.11-slim-bookworm", help="the image that it was built on")
    given = parser.parse_args()
    sizes = json.loads(docker("run", "--rm", given.image, "python", "-c", MEASURE))
    image, base = (json.loads(docker("image", "inspect", name))[0]["Size"] for name in (given.image, given.base))
    rows: dict[str, int] = {}
    for name, count in sizes.items():
        rows[row_of(name)] = rows.get(row_of(name), 0) + count
    rest = rows.pop("the rest", 0) + (image - base - sum(sizes.values()))
    print("| | MB | why |\n|---|---:|---|")
    for title, count in sorted(rows.items(), key=lambda row: -row[1]):
        print(f"| {title} | {count / 1e6:.0f} | {ROWS[title][1]} |")
    print(f"| the rest | {rest / 1e6:.0f} | small packages that these need |")
    print(f"| **added to the base** | **{(image - base) / 1e6:.0f}** | to {base / 1e6:.0f} MB of {given.base} |")


if __name__ == "__main__":
    main()
