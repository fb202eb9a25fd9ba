"""`image build`, `image test` and `image push` through the Docker SDK, and `image store`: the entry in a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force
from v6_algorithm.researcher.cli.terminal import Json, choice, complain, explained, say, tell, writing

app = typer.Typer(help="Build, try and push the algorithm's Docker image.", no_args_is_help=True)

Tag = Annotated[
    str | None, typer.Option(metavar="NAME[:TAG]", help="The image's name.", show_default="v6-algorithm:VERSION")
]
Variant = Annotated[str, typer.Option(**choice("cpu", "cuda"), help="cuda for GPUs; the tag of that ends in -cuda.")]
Vantage6 = Annotated[
    int, typer.Option("--vantage6", help="4 or 5: whose nodes run it; the tag of 5 ends in -vantage6-5.")
]


@app.command(epilog="Example: v6-algorithm image build --variant cuda")
def build(
    tag: Tag = None,
    variant: Variant = "cpu",
    vantage6: Vantage6 = 4,
    base_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="An image with Python and pip.", show_default="the Dockerfile's")
    ] = None,
    torch_index: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where pip finds torch.", show_default="PyTorch's CPU wheels; PyPI for cuda"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A checkout of v6_algorithm.", show_default="where this one runs from"),
    ] = None,
    json_: Json = False,
) -> None:
    """Build the image from a checkout."""
    with explained(json_):
        from v6_algorithm.researcher.doctor.finding import size
        from v6_algorithm.researcher.image.build import build as build_image
        from v6_algorithm.researcher.image.build import plan
        from v6_algorithm.researcher.image.engine import engine

        wanted = plan(
            source, variant=variant, vantage6=vantage6, tag=tag, base_image=base_image, torch_index=torch_index
        )
        with engine() as client, terminal.out.status(f"building {wanted.tag} …"):
            sizes = build_image(client, wanted, _show_steps)
        added = "" if sizes.base is None else f", {size(sizes.image - sizes.base)} more than {wanted.base}"
        tell({"image": wanted.tag, "variant": variant, "bytes": sizes.image, "base_bytes": sizes.base})
        say(f"{wanted.tag} ({variant}): {size(sizes.image)}{added}")


@app.command("test", epilog="Example: v6-algorithm image test --tag my-image:1")
def try_out(tag: Tag = None, variant: Variant = "cpu", vantage6: Vantage6 = 4, json_: Json = False) -> None:
    """Try the image as a node would run it: the doctor, and one call through vantage6's wrapper."""
    with explained(json_):
        from v6_algorithm.researcher.image import trial
        from v6_algorithm.researcher.image.engine import engine, image_of
        from v6_algorithm.researcher.image.names import default_tag, own_version, split_tag

        name = tag or default_tag(own_version(), variant, vantage6)
        split_tag(name)
        with engine() as client:
            image_of(client, name)
            with terminal.out.status(f"trying {name} …"):
                report = trial.run_doctor(client, name)
                for finding in report["findings"]:
                    if finding["status"] != "ok":
                        say(f"{finding['status']}: {finding['name']}: {finding['message']}; {finding['advice']}")
                if not report["usable"]:
                    complain(f"{name}: its doctor finds it not usable")
                    raise typer.Exit(3)
                versions = report["versions"]
                say(f"doctor: usable; python {versions['python']}, torch {versions['torch']}")
                reply = trial.run_call(client, name)
            rows, columns = (reply["members"]["trial"][key] for key in ("rows", "columns"))
            say(f"RPC_prepare through vantage6's wrapper: {rows} rows, {len(columns)} columns")
            say(f"{name}: works")
            tell({"image": name, "works": True, "versions": versions})


@app.command(epilog="Example: v6-algorithm image push registry.example.org/research")
def push(
    registry: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY", help="HOST:PORT/PATH, such as registry.example.org/research.", show_default=False
        ),
    ],
    tag: Annotated[
        str | None,
        typer.Option(metavar="NAME[:TAG]", help="The image to push.", show_default="this version's, of both variants"),
    ] = None,
    json_: Json = False,
) -> None:
    """Push the image with the login that Docker has (`docker login`), and print the name for allowed_algorithms."""
    with explained(json_):
        from v6_algorithm.researcher.image.engine import engine
        from v6_algorithm.researcher.image.names import name_at, split_tag
        from v6_algorithm.researcher.image.push import built
        from v6_algorithm.researcher.image.push import push as push_image

        name_at(registry, tag or "v6-algorithm")
        if tag is not None:
            split_tag(tag)
        digests = {}
        with engine() as client:
            for image in [tag] if tag else built(client):
                with terminal.out.status(f"pushing {image} …"):
                    digest = push_image(client, image, registry, lambda line: None)
                say(f"pushed {':'.join(name_at(registry, image))}")
                say(digest)
                digests[image] = digest
        tell({"pushed": digests})
        say("The names with sha256 go into allowed_algorithms of the nodes' configuration.")


@app.command(
    epilog="Example: v6-algorithm image store registry.example.org/v6-algorithm@sha256:… --code-url https://example.org/code"
)
def store(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="As `image push` printed it.", show_default=False)],
    code_url: Annotated[str, typer.Option(metavar="URL", help="Where the code can be read.", show_default=False)],
    documentation_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the pages can be read.", show_default="the code's")
    ] = None,
    vantage6: Annotated[int, typer.Option("--vantage6", help="4 or 5: of which vantage6 the store is.")] = 4,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")] = Path("store.json"),
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A checkout of v6_algorithm.", show_default="where this one runs from"),
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write what the owner of a vantage6 algorithm store uploads, with your image and links."""
    with explained(json_):
        from v6_algorithm.researcher.image.store import entry, unreachable

        content = entry(image, code_url, documentation_url, vantage6=vantage6, source=source)
        if out.exists() and not force:
            raise ExperimentError(f"--out {out}: is there already; --force writes over it")
        dead = {}
        for url in dict.fromkeys([content["code_url"], content["documentation_url"]]):
            if (why := unreachable(url)) is not None:
                dead[url] = why
                complain(
                    f"{url} does not answer from here ({why}): readers of the store will follow it", kind="warning"
                )
        with writing(out):
            out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        tell({"file": str(out), "image": image, "functions": len(content["functions"]), "unreachable": dead})
        say(f"wrote {out}: {len(content['functions'])} functions; upload it to the store of vantage6 {vantage6}")


def _show_steps(line: str) -> None:
    """Print the Dockerfile's steps, each cut to a line; the rest is for when a step fails."""
    if line.startswith("Step "):
        say(line if len(line) <= 110 else f"{line[:109]}…")
