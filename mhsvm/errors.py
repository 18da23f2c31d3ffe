"""Errors of checks that do not depend on each other, raised as one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType


class SeveralErrors(ValueError):
    """Several errors in one message.

    Attributes:
        errors: The errors.
    """

    def __init__(self, headline: str, errors: Sequence[ValueError | OSError]) -> None:
        self.errors = tuple(errors)
        lines = [str(error).replace("\n", "\n    ") for error in errors]
        super().__init__("\n".join([f"{len(lines)} {headline}:", *(f"  {line}" for line in lines)]))


class Errors:
    """Collects the errors of independent checks."""

    def __init__(self) -> None:
        self._found: dict[str, ValueError | OSError] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def collected(self) -> AbstractContextManager[None, bool]:
        """Collect an error of the block, which ends there; a defect of the program passes."""
        return _Collecting(self)

    def add(self, error: ValueError | OSError) -> None:
        """Collect an error, once for each message; several in one are separate again."""
        for each in error.errors if isinstance(error, SeveralErrors) else (error,):
            self._found.setdefault(str(each), each)

    def raise_if_any(self, headline: str) -> None:
        """Raise the only error as it is, or a ValueError that lists all.

        Args:
            headline: Follows the number of errors, such as "settings cannot be used".
        """
        if len(self._found) == 1:
            raise next(iter(self._found.values()))
        if self._found:
            raise SeveralErrors(headline, list(self._found.values()))


class _Collecting(AbstractContextManager[None, bool]):
    def __init__(self, errors: Errors) -> None:
        self._errors = errors

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, (ValueError, OSError)):
            self._errors.add(error)
            return True
        return False
