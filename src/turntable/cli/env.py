"""``turntable env``: list, build, lock, export, remove, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import _options as o

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

MethodsArgument = Annotated[
    list[str], typer.Argument(metavar="METHOD", help="Methods by their names or folders.", show_default=False)
]


@app.command("list")
@o.verb
def list_environments(
    bench: o.BenchOption = None, as_json: o.JsonOption = False, debug: o.DebugOption = False
) -> None:
    """List the environments of the bench, and which methods live in them."""
    from ..bench import Bench
    from ..environments import environments_of, users_of
    from ..environments.images import all_images
    from ._tables import print_table

    place = Bench.find(bench)
    users = users_of(place)
    found: list[dict[str, Any]] = [
        {
            "hash": one.hash,
            "kind": "uv",
            "python": one.document["python"],
            "packages": len(one.document["packages"]),
            "bytes": one.size_bytes,
            "methods": users.get(one.hash, []),
            "replaced": one.document["replaced"],
        }
        for one in environments_of(place).all()
    ]
    found += [
        {
            "hash": one.hash,
            "kind": f"image of {one.document['engine']}",
            "python": one.document["python"],
            "packages": None,
            "bytes": one.document["bytes"],
            "methods": users.get(one.hash, []),
            "replaced": [],
            "image": one.document["id"],
        }
        for one in all_images(place.folder)
    ]
    if as_json:
        o.print_json({"environments": found})
        return
    rows = [
        [
            row["hash"],
            row["kind"],
            row["python"],
            "" if row["packages"] is None else str(row["packages"]),
            f"{row['bytes'] / 1e6:.0f}",
            ", ".join(row["methods"]) or "none",
        ]
        for row in found
    ]
    print_table(["environment", "kind", "python", "packages", "MB", "methods"], rows)


@app.command()
@o.verb
def build(
    methods: MethodsArgument,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Build the environments of methods, or fetch their images; those that are there already are left as they are."""
    from ..bench import Bench
    from ..environments import build as do

    place = Bench.find(bench)
    place.make()
    found = [do(place, place.method(name), o.say) for name in methods]
    if as_json:
        o.print_json({"environments": [environment.document for environment in found]})
        return
    for environment in found:
        typer.echo(environment.folder)


@app.command()
@o.verb
def lock(methods: MethodsArgument, bench: o.BenchOption = None, debug: o.DebugOption = False) -> None:
    """Resolve the pyproject.toml of methods into a uv.lock, and build what comes as a source only; or an image's tag into
    its digest."""
    from ..bench import Bench
    from ..environments import lock as do

    place = Bench.find(bench)
    place.make()
    for name in methods:
        typer.echo(do(place, place.method(name), o.say))


@app.command()
@o.verb
def export(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method's name or folder.")],
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="dockerfile, requirements or pylock.")
    ] = "dockerfile",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to.", show_default="standard output"),
    ] = None,
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Write a method's environment as others can build it."""
    from ..bench import Bench
    from ..environments import export as do
    from ..files import write_text

    place = Bench.find(bench)
    text = do(place, place.method(method), form)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out.expanduser(), text)


@app.command()
@o.verb
def remove(
    hashes: Annotated[
        list[str], typer.Argument(metavar="HASH", help="Environments (see env list).", show_default=False)
    ],
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Remove environments; they can be built again from their recipes."""
    from ..bench import Bench
    from ..environments import remove as do

    place = Bench.find(bench)
    for hash in hashes:
        do(place, hash)
        o.say(f"{hash}: removed")


@app.command()
@o.verb
def prune(bench: o.BenchOption = None, debug: o.DebugOption = False) -> None:
    """Remove the environments in which no method of the bench lives, and the files that only they needed."""
    from ..bench import Bench
    from ..environments import prune as do

    freed = do(Bench.find(bench))
    o.say(f"{freed / 1e9:.2f} GB freed")
