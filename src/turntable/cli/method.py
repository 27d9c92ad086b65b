"""``turntable method``: list, show."""

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
    from ._tables import print_table

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
