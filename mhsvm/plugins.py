"""Modules that register entries: those of a folder of the package, and plugins, modules of users outside of it."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable


def import_folder(package: str) -> None:
    """Import every module of a package, so that an entry inside the package needs no line but its own.

    Call it at the end of the package's `__init__.py`, as `import_folder(__name__)`.
    """
    for module in pkgutil.iter_modules(sys.modules[package].__path__):
        importlib.import_module(f"{package}.{module.name}")


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules that the user names, from where Python finds them or from the current folder.

    Raises:
        ValueError: One is no name of a module, or cannot be imported.
    """
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"a plugin is the name of a module, such as my_losses, not the path {name!r} of a file")
        if name not in sys.modules and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"the plugin {name!r} cannot be imported: {error}. Install it, or run where {name}.py is"
            ) from error


def check_plugins(modules: Iterable[str], *, allowed_in: str) -> None:
    """Check that the plugins named by a checkpoint are imported already: a file does not choose the code that runs.

    Args:
        modules: Their names.
        allowed_in: The place where the user can name them, for the message.
    Raises:
        ValueError: Some are not imported.
    """
    missing = [name for name in modules if sys.modules.get(name) is None]
    if missing:
        raise ValueError(
            f"it names plugins that are not imported: {', '.join(missing)}. A checkpoint imports no modules by itself; "
            f"if you trust their code, name them in {allowed_in}"
        )
