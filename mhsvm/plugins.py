"""Modules outside the package that register entries: networks, mixers, losses, data sets, metrics, …"""

import importlib
import os
import sys
from collections.abc import Iterable


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules, from where Python finds them or from the current folder.

    Raises:
        ValueError: One cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"the plugin {name!r} cannot be imported: {error}. Install it, or run where {name}.py is"
            ) from error
