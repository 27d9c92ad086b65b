"""Finding a method's class: its folder becomes a package, so that its modules may import each other."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any


def load_class(folder: Path, entry: str) -> Any:
    """The class that ``entry`` (``"module:Class"``) names.

    The module is looked for in the method's folder first (where ``from . import other`` works, and
    ``import other`` too), then among what is installed in the environment.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such class.
    """
    module_name, _, class_name = entry.partition(":")
    if (folder / (module_name.replace(".", "/") + ".py")).exists():
        # A name of our own, lest a folder called "torch" stand in the way of the real one.
        package_name = "turntable_method_" + re.sub(r"\W", "_", folder.name)
        package = types.ModuleType(package_name)
        package.__path__ = [str(folder)]
        sys.modules[package_name] = package
        sys.path.insert(0, str(folder))
        module = importlib.import_module(package_name + "." + module_name)
    else:
        module = importlib.import_module(module_name)
    if not hasattr(module, class_name):
        raise AttributeError("module {} has no class {}".format(module_name, class_name))
    return getattr(module, class_name)
