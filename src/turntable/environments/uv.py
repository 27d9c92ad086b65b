"""uv, the program that resolves, locks and installs: how it is called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..errors import TurntableError

NO_NETWORK = "UV_OFFLINE"
"""The variable of uv's own that says that there is no network."""

SYSTEMS_CERTIFICATES = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
"""As pip does: whom this machine trusts, a company's proxy for instance, is said there. (The second is the older name.)"""

LONGEST = 500

# What uv would take from a project or an environment around us is none of the method's business.
NOT_OURS = (
    "VIRTUAL_ENV",
    "UV_PROJECT",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_WORKING_DIRECTORY",
    "CONDA_PREFIX",
)


def program() -> Path:
    """uv's program, which its Python package brings.

    Raises:
        TurntableError: it isn't there.
    """
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise TurntableError(
            "Environments are built with uv, which comes with Turntable and is missing: pip install uv."
        ) from None


def uv(
    *words: str | Path, what: str, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run uv to its end.

    Args:
        words: its arguments.
        what: what is done, for the message.
        log: gets all that it says.
        variables: of the environment.

    Returns:
        What it printed on standard output.

    Raises:
        TurntableError: it failed; the message has its last words.
    """
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    answer = subprocess.run(
        [program(), *map(str, words), "--no-progress", "--color", "never"],
        env={**SYSTEMS_CERTIFICATES, **environment, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ uv {' '.join(map(str, words))}\n{answer.stdout}{answer.stderr}\n")
    if answer.returncode != 0:
        raise TurntableError(f"{what[:1].upper()}{what[1:]} failed: {words_of(answer.stderr)}")
    return answer.stdout


def words_of(text: str) -> str:
    """What a program said of its failure, as one line that isn't too long."""
    lines = [line.strip(" ×╰─▶│├") for line in text.splitlines()]
    said = " ".join(line for line in lines if line)
    return said if len(said) <= LONGEST else said[:LONGEST] + " …" if said else "it said nothing"
