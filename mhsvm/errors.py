"""Errors of checks that do not depend on each other, raised as one."""

from collections.abc import Iterator
from contextlib import contextmanager


class Errors:
    """Collects the errors of independent checks."""

    def __init__(self) -> None:
        self._found: list[ValueError | OSError] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect an error of the block, which ends there; a defect of the program passes."""
        try:
            yield
        except (ValueError, OSError) as error:
            self._found.append(error)

    def add(self, message: str) -> None:
        """Collect a message."""
        self._found.append(ValueError(message))

    def raise_if_any(self, headline: str) -> None:
        """Raise the only error as it is, or a ValueError with `headline` and a line for each of several.

        Args:
            headline: Follows the number of errors, such as "settings cannot be used".
        """
        messages = list(dict.fromkeys(map(str, self._found)))
        if len(messages) == 1:
            raise self._found[0]
        if messages:
            lines = ["\n    ".join(message.splitlines()) for message in messages]
            raise ValueError("\n".join([f"{len(lines)} {headline}:", *(f"  {line}" for line in lines)]))
