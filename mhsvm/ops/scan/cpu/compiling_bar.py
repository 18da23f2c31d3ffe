"""A sign that kernels are being compiled: a bar in a terminal, elsewhere one line a process, both on stderr."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.event import Event, Listener, install_listener

_MESSAGE = "compiling for this processor (the first use only)"


@contextmanager
def compiling_shown(name: str) -> Iterator[None]:
    """Show the progress of a compilation within the block; nothing if the kernel is found on disk.

    Args:
        name: The kernel. The number of its functions is not known before.
    """
    functions = _Functions(name)
    try:
        with install_listener("numba:compile", functions):
            yield
    finally:
        functions.close()


class _Functions(Listener):
    """Counts the functions whose compilation has begun; the first shows the bar."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def on_start(self, event: Event) -> None:
        if not sys.stderr.isatty():
            _say_once()
            return
        if self._bar is None:
            # imported here, because no bar is needed if the kernels are on disk
            from tqdm import tqdm

            self._bar = tqdm(
                desc=f"{_MESSAGE}: {self._name}", unit=" functions", leave=False, disable=None, dynamic_ncols=True
            )
        self._bar.update()

    def on_end(self, event: Event) -> None:
        pass

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@functools.cache
def _say_once() -> None:
    print(f"{_MESSAGE}: this takes up to a minute", file=sys.stderr, flush=True)
