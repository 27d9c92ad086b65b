"""Options that several verbs share, and how every verb ends: see :func:`verb`."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..errors import TurntableError, disk_error, unknown_name

if TYPE_CHECKING:
    from ..captures.build import CaptureOptions
    from ..jobs import RunRequest
    from ..record import Terms
    from ..report.data import PageOptions
    from ..turns.supervisor import Patience

LONGEST_PATIENCE_S = 1e6
"""Eleven days."""

HIGHEST_PRIORITY = 1000

DONE, WRONG, FAILED, INTERRUPTED = 0, 2, 3, 130

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

BenchOption = Annotated[
    Path | None,
    typer.Option(
        "--bench",
        metavar="DIR",
        help="The bench; else $TURNTABLE_BENCH, else the nearest folder upward with a bench.toml, else ./bench.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--method",
        metavar="METHOD",
        help="A method's name or folder; may be repeated. Default: nearest and splat.",
    ),
]
BudgetOption = Annotated[
    str, typer.Option("--budget", metavar="2m|2000steps", help="Device time or steps for each run.")
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", metavar="N", help="So many runs per method, seeds 0, 1, …")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="Where the runs train: cpu, cuda (any card) or cuda:<number>."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="[METHOD.]NAME=VALUE", help="A method's setting (see method show); repeatable."
    ),
]
PatienceOption = Annotated[
    float,
    typer.Option(
        "--patience", metavar="SECONDS", help="A method that says nothing for so long counts as hung."
    ),
]
LpipsOption = Annotated[
    Path | None,
    typer.Option(
        "--lpips-weights",
        metavar="FILE",
        help="Score LPIPS too, with these local weights.",
        show_default=False,
    ),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Make new runs even where the same was asked before.")
]

NoSandboxOption = Annotated[
    bool,
    typer.Option(
        "--no-sandbox",
        help="Run methods with your own rights: they can read your files and reach the network.",
    ),
]

LangOption = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="LANG",
        help="The page's language: en or ko.",
        show_default="bench.toml's, else en",
    ),
]
NoAroundOption = Annotated[
    bool,
    typer.Option(
        "--no-3d", help="Leave the page without orbit videos and 3D views, which take a while to make."
    ),
]

RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Runs by their ids (see status).", show_default=False)
]
DetachOption = Annotated[
    bool,
    typer.Option("--detach", help="Leave the work to a process in the background, and return at once."),
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="How the runs share their device with others: round-robin (turns of --quantum), or first-come (each keeps "
        "it to its end).",
    ),
]
QuantumOption = Annotated[
    float,
    typer.Option(
        "--quantum", metavar="SECONDS", help="Round robin: the length of a turn while other runs wait."
    ),
]
PriorityOption = Annotated[
    int,
    typer.Option(
        "--priority",
        metavar="N",
        help="Higher goes first, and takes the device from lower ones; may be negative.",
    ),
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="RUN", help="Begin when that run has ended, however it ended.", show_default=False
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="The device memory that each run needs, such as 500M or 24G: it doesn't begin where it can't fit.",
        show_default="what earlier runs of the method on the capture needed",
    ),
]

NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The capture's name.", show_default="the source's"),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="photos, colmap, transforms, llff or middlebury; else recognised by what lies in the folder.",
        show_default=False,
    ),
]
LongSideOption = Annotated[
    int | None,
    typer.Option(
        "--long-side", metavar="PX", help="Resize photos to this longer side.", show_default="as they are"
    ),
]
BackgroundOption = Annotated[
    str,
    typer.Option(
        "--background", metavar="COLOUR", help="What alpha is composited onto: white, black or #rrggbb."
    ),
]
EveryOption = Annotated[
    int | None,
    typer.Option(
        "--every",
        metavar="N",
        help="Every N-th view by name is held out, the first included, unless the source brings its own split.",
        show_default="8",
    ),
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Where a COLMAP model or LLFF's poses have their photos in several sizes: the one to take, such as images_4.",
        show_default=False,
    ),
]
HoldOutOption = Annotated[
    str | None,
    typer.Option(
        "--hold-out",
        metavar="RULE",
        help="Held out whatever the source says: every:8; segment:0.2, the last fifth by name in one piece; list:FILE, a "
        "view's name a line.",
        show_default=False,
    ),
]
AcceptPosesOption = Annotated[
    bool, typer.Option("--accept-poses", help="Go on even where the poses found for raw photos are doubtful.")
]
MatchingOption = Annotated[
    str, typer.Option("--matching", metavar="HOW", help="Raw photos: exhaustive, sequential or auto.")
]
MapperOption = Annotated[
    str, typer.Option("--mapper", metavar="MAPPER", help="Raw photos: incremental or global.")
]
FramesOption = Annotated[int, typer.Option("--frames", metavar="N", help="Video: how many frames to take.")]
PoseSeedOption = Annotated[int, typer.Option("--pose-seed", metavar="N", help="Seed for finding poses.")]


def verb(function: _Verb) -> _Verb:
    """How every verb ends: an error is one line and status 2, an interruption says how to go on (130)."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants it to go on
            signal.signal(signal.SIGHUP, _interrupt)
        try:
            return function(*args, **kwargs)
        except TurntableError as error:
            show_traceback(kwargs)
            fail(str(error))
        except BrokenPipeError:  # `… | head`: nobody reads on, and nobody needs to be told
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            show_traceback(kwargs)
            fail(str(disk_error(error, "or read a file")))
        except KeyboardInterrupt:
            say(
                "Interrupted. What was finished is kept; runs for which nobody else answers are paused: the same command "
                "goes on from here."
            )
            raise typer.Exit(INTERRUPTED) from None

    return run  # type: ignore[return-value]  # wraps keeps the signature, which Typer reads


def show_traceback(options: dict[str, Any]) -> None:
    """Print the traceback of the error at hand, if ``--debug`` is among the options."""
    if options.get("debug"):
        traceback.print_exc()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def fail(text: str) -> None:
    """Print an error and end with status 2."""
    say(f"turntable: {text}")
    raise typer.Exit(WRONG)


def say(text: str) -> None:
    """Print a line for the user on standard error."""
    typer.echo(text, err=True)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(document, sys.stdout, ensure_ascii=False, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def parse_background(text: str) -> tuple[float, float, float]:
    """``white``, ``black`` or ``#rrggbb`` as sRGB in [0, 1].

    Raises:
        TurntableError: anything else.
    """
    named = {"white": "#ffffff", "black": "#000000"}
    digits = named.get(text.lower(), text).removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise TurntableError(f"--background takes white, black or #rrggbb, not {text!r}.") from None
    return red / 255, green / 255, blue / 255


def capture_options(
    name: str | None,
    format: str | None,
    long_side: int | None,
    background: str,
    every: int | None,
    hold_out: str | None,
    accept_poses: bool,
    matching: str,
    mapper: str,
    frames: int,
    pose_seed: int,
    images: str | None,
) -> CaptureOptions:
    """The options of a capture, from the command line's.

    Raises:
        TurntableError: one can't be understood, or ``--every`` and ``--hold-out`` disagree.
    """
    from ..captures.build import CaptureOptions
    from ..captures.split import EVERY, HoldOut

    rule = None if hold_out is None else HoldOut.parse(hold_out)
    if rule is not None and every is not None and rule != HoldOut("every", every=every):
        raise TurntableError(
            f"--every {every} and --hold-out {hold_out} disagree: both say what is held out. Give one of them."
        )

    return CaptureOptions(
        name=name,
        format=format,
        long_side=long_side,
        background=parse_background(background),
        every=EVERY if every is None or rule is not None else every,
        hold_out=rule,
        seed=pose_seed,
        accept_poses=accept_poses,
        matching=matching,
        mapper=mapper,
        frames=frames,
        images=None if images is None else images.rstrip("/"),
    )


def page_options(
    lang: str | None, no_3d: bool, no_sandbox: bool = False, single_file: bool = False
) -> PageOptions:
    """How the page is written, from the command line's options.

    Raises:
        TurntableError: there is no such language.
    """
    from ..lang import texts
    from ..report.data import PageOptions

    if lang is not None:
        texts(lang)
    return PageOptions(lang=lang, single_file=single_file, around=not no_3d, walls=not no_sandbox)


def run_request(
    methods: list[str] | None,
    budget: str,
    seeds: int,
    device: str,
    settings: list[str] | None,
    patience: float,
    lpips_weights: Path | None,
    fresh: bool,
    terms: Terms,
    no_sandbox: bool = False,
) -> RunRequest:
    """What is asked of methods, from the command line's options."""
    from ..jobs import RunRequest
    from ..run import Budget

    return RunRequest(
        methods=tuple(methods or ("nearest", "splat")),
        budget=Budget.parse(budget),
        seeds=seeds,
        device=device,
        settings=tuple(settings or ()),
        patience=checked_patience(patience),
        lpips_weights=lpips_weights,
        fresh=fresh,
        command=shlex.join(["turntable", *sys.argv[1:]]),
        terms=terms,
        walls=not no_sandbox,
    )


def checked_patience(seconds: float) -> Patience:
    """``--patience``.

    Raises:
        TurntableError: it is out of bounds.
    """
    from ..turns.supervisor import Patience

    if not 0 < seconds <= LONGEST_PATIENCE_S:
        raise TurntableError(
            f"--patience is a number of seconds above 0, at most {LONGEST_PATIENCE_S:g}, not {seconds:g}."
        )
    return Patience(message_s=seconds)


def terms(
    policy: str, quantum: float, priority: int = 0, after: str | None = None, memory: str | None = None
) -> Terms:
    """On what terms runs take their turns, from the command line's options.

    Raises:
        TurntableError: there is no such policy, or a number is out of bounds.
    """
    from ..record import Terms

    policies = {"round-robin": quantum, "first-come": None}
    if policy not in policies:
        raise unknown_name("policy", policy, policies)
    if abs(priority) > HIGHEST_PRIORITY:
        raise TurntableError(
            f"--priority is a whole number from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, not {priority}."
        )
    return Terms(priority, policies[policy], after, 0 if memory is None else parse_bytes(memory))


def parse_bytes(text: str) -> int:
    """``500M``, ``24G``, ``24GB``, ``1.5T`` in bytes.

    Raises:
        TurntableError: anything else.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?) ?([MGT])B?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise TurntableError(f"--memory is like 500M or 24G, not {text!r}.")
    return int(float(match[1]) * {"M": 1e6, "G": 1e9, "T": 1e12}[match[2].upper()])


def has_terminal() -> bool:
    """Whether somebody can press Ctrl-C here."""
    return sys.stdin.isatty()
