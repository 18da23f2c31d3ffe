"""Things that users choose by name, each kind in one `Registry`."""

import sys
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from mhsvm.nearest import did_you_mean

Entry = TypeVar("Entry")
Registered = TypeVar("Registered")


class Registry(Generic[Entry]):
    """Entries of one kind by name, in the order of registration.

    Args:
        kind: Noun for error messages, such as "scan pattern".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorate a class or function to register it.

        Raises:
            ValueError: The name is taken.
        """

        def decorate(entry: Registered) -> Registered:
            # the caller keeps the type of the entry, and is trusted to register an entry of the kind
            self._add(name, cast(Entry, entry), _origin(entry))
            return entry

        return decorate

    def add(self, name: str, entry: Entry, *, made_of: object = None) -> Entry:
        """Register an entry and return it.

        Args:
            name: Its name.
            entry: A class, a function or any other object.
            made_of: Class or function that a record is made of, which errors name instead.
        Raises:
            ValueError: The name is taken.
        """
        caller = sys._getframe(1).f_globals.get("__name__", "?")
        self._add(name, entry, _origin(entry if made_of is None else made_of, made_in=caller))
        return entry

    def remove(self, name: str) -> None:
        """Forget an entry, as before a notebook's cell registers it again.

        Raises:
            ValueError: The name is unknown.
        """
        self[name]
        del self._entries[name], self._origins[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def __getitem__(self, name: str) -> Entry:
        """Look up an entry.

        Raises:
            ValueError: The name is unknown; the known ones are listed and the nearest is named.
        """
        if name not in self._entries:
            known = ", ".join(self._entries) or "none"
            raise ValueError(f"unknown {self.kind} {name!r}; known: {known}{did_you_mean(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Pairs of name and entry."""
        return iter(tuple(self._entries.items()))

    def _add(self, name: str, entry: Entry, origin: str) -> None:
        if name in self._entries:
            raise ValueError(
                f"{self.kind} {name!r} is registered already, as {self._origins[name]}; "
                f"{origin} needs another name, or remove the first"
            )
        self._entries[name] = entry
        self._origins[name] = origin


def _origin(entry: object, *, made_in: str | None = None) -> str:
    """Module and qualified name of a class or function; of another object, its type and where it was registered."""
    qualname = getattr(entry, "__qualname__", None)
    if qualname is not None:
        return f"{entry.__module__}.{qualname}"
    return f"{type(entry).__qualname__} of {made_in or type(entry).__module__}"
