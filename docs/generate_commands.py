"""Write docs/commands.md: the help of every verb, as the program prints it. A test holds the file to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "commands.md"

VERBS = (
    "", "demo", "compare", "get", "run", "status", "watch", "pause", "resume", "cancel", "retry", "scores",
    "published", "report", "view", "serve", "export", "doctor", "capture", "capture add", "capture list", "capture show",
    "method", "method list", "method show",
)  # fmt: skip

HEAD = """# Every command

Made by `python docs/generate_commands.py` from the program's own help; the tests hold it to that.
Exit status: 0 done; 2 the request or its input was wrong; 3 at least one run failed; 130 interrupted.
"""


def help_of(verb: str) -> str:
    """What ``turntable VERB --help`` prints, 100 columns wide."""
    code = "import sys; sys.argv[0] = 'turntable'; from turntable.__main__ import main; main()"
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, *verb.split(), "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for verb in VERBS:
        title = f"turntable {verb}".strip()
        lines = [line.rstrip() for line in help_of(verb).strip("\n").splitlines()]
        parts.append(f"## `{title}`\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
