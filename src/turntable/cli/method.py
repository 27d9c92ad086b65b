"""``turntable method``: list, show, new, check, install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options as o

if TYPE_CHECKING:
    from ..methods.spec import Method

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _summary(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "task": method.task,
        "title": method.title,
        "environment": {"kind": method.environment["kind"]},
        "from": method.origin,
    }


@app.command("list")
@o.verb
def list_methods(
    bench: o.BenchOption = None, as_json: o.JsonOption = False, debug: o.DebugOption = False
) -> None:
    """List the methods: built in, and the bench's own."""
    from ..bench import Bench
    from ._tables import print_table

    methods = [_summary(method) for method in Bench.find(bench).methods().values()]
    if as_json:
        o.print_json({"methods": methods})
        return
    rows = [[m["name"], m["task"], m["title"], m["environment"]["kind"], m["from"]] for m in methods]
    print_table(["name", "task", "title", "environment", "from"], rows)


@app.command()
@o.verb
def show(
    name: Annotated[str, typer.Argument(metavar="METHOD", help="A method's name or folder.")],
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Show a method: paper, licence, environment and every setting."""
    from ..bench import Bench
    from ._tables import print_facts, print_table

    method = Bench.find(bench).method(name)
    if as_json:
        settings = {
            key: {
                "default": setting.default,
                "help": setting.help,
                "min": setting.minimum,
                "max": setting.maximum,
                "choices": list(setting.choices),
            }
            for key, setting in method.settings.items()
        }
        extra = {
            "license": method.license,
            "paper": method.paper,
            "folder": str(method.folder),
            "settings": settings,
        }
        o.print_json({**_summary(method), **extra, "published": list(method.published)})
        return
    typer.echo(
        f"{method.name}: {method.title}  (task {method.task}, {method.origin}, {method.license or 'no licence given'})"
    )
    if method.paper:
        typer.echo(
            f"  {method.paper.get('title', '')} ({method.paper.get('year', '')}) {method.paper.get('url', '')}"
        )
    typer.echo(f"  folder {method.folder}")
    rows = [[setting.name, str(setting.default), setting.help] for setting in method.settings.values()]
    print_table(["setting", "default", "what it does"], rows)
    for entry in method.reproduces:
        given = ", ".join(f"{key}={value}" for key, value in entry.settings.items())
        typer.echo(f"  implements {entry.method}{' with ' + given if given else ''}: see turntable published")
    for dataset in dict.fromkeys(fact.dataset for fact in method.facts):
        typer.echo(f"  published on {dataset}")
        print_facts([fact for fact in method.facts if fact.dataset == dataset])


@app.command()
@o.verb
def new(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The method's name, or a path with a / in it.", show_default=False
        ),
    ],
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Begin a method: a folder that runs at once, with comments that teach."""
    from ..bench import Bench
    from ..methods.making import new as do

    place = Bench.find(bench)
    place.make()
    typer.echo(do(place.methods_folder, name))
    o.say("It runs as it is: turntable method check, then compare -m it.")


@app.command()
@o.verb
def check(
    name: Annotated[
        str, typer.Argument(metavar="METHOD", help="A method's name or folder.", show_default=False)
    ],
    capture: Annotated[
        str | None,
        typer.Option(
            "--capture",
            metavar="CAPTURE",
            help="The capture to try it on.",
            show_default="a small scene rendered here",
        ),
    ] = None,
    device: o.DeviceOption = "cpu",
    settings: o.SetOption = None,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Try whether a method keeps the contract: seeds, saving and resuming, odd sizes, one view, NaN, ending.

    Ends with status 3 if it doesn't.
    """
    from dataclasses import asdict

    from ..bench import Bench
    from ..conformance import check as do
    from ..jobs import demo_capture, settings_by_method
    from ._progress import watching
    from ._tables import print_table

    place = Bench.find(bench)
    method = place.method(name)
    with watching() as watcher:
        chosen = place.capture(capture) if capture else demo_capture(place, watcher)
        values = settings_by_method([method], settings or ())[method.name]
        found = do(place, method, chosen, device, not no_sandbox, watcher.note, values)
    if as_json:
        o.print_json({"method": method.name, "checks": [asdict(one) for one in found]})
    else:
        words = {True: "yes", False: "no", None: "?"}
        print_table(["", "rule", "seen"], [[words[one.good], one.what, one.text] for one in found])
    if any(one.good is False for one in found):
        raise typer.Exit(o.FAILED)


@app.command()
@o.verb
def install(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URL|PACKAGE",
            help="A folder; a git repository (https://….git, with @COMMIT) or archive; or a Python package with methods.",
            show_default=False,
        ),
    ],
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Copy somebody's methods into the bench. Nothing of them runs now."""
    from ..bench import Bench
    from ..methods.making import install as do

    place = Bench.find(bench)
    place.make()
    methods = do(place.methods_folder, source, o.say)
    if as_json:
        o.print_json({"methods": [_summary(method) for method in methods]})
        return
    for method in methods:
        typer.echo(f"{method.name}: {method.title}  ({method.folder})")
