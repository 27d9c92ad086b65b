"""``python …/turntable/worker/__main__.py FD``: the worker, talking over the inherited socket FD.

It is started by its path, because Turntable itself is not installed in a method's environment. It makes
itself the package ``turntable_worker`` and takes its own folder off the search path again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def main() -> int:
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        "turntable_worker", str(folder / "__init__.py"), submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError("no worker in {}".format(folder))
    package = importlib.util.module_from_spec(spec)
    sys.modules["turntable_worker"] = package
    spec.loader.exec_module(package)
    session = importlib.import_module("turntable_worker.session")
    return session.serve(int(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
