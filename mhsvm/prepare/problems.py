"""Problems of a source, collected and raised together."""

import re
import threading
from dataclasses import dataclass

_LONGEST_LIST = 10


@dataclass(frozen=True)
class Rule:
    """A rule for sources: the name of a violation, and the most likely fix."""

    broken: str
    fix: str


class Problems:
    """Collects violations, also from several threads, and raises them as one error."""

    def __init__(self) -> None:
        self._items: dict[Rule, list[str]] = {}
        self._left_out: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._items)

    def __contains__(self, rule: object) -> bool:
        return rule in self._items

    def add(self, rule: Rule, item: str) -> None:
        """Record that `item`, an id or a file with details, violates `rule`."""
        with self._lock:
            self._items.setdefault(rule, []).append(item)

    def put_first(self, rule: Rule) -> None:
        """Report a violated rule before the others, which may be its consequences."""
        with self._lock:
            self._items = {rule: self._items.pop(rule), **self._items}

    def leave_out(self, kind: str, item: str) -> None:
        """Record that a file or folder is left out, which is no violation; `kind` is a plural noun."""
        with self._lock:
            self._left_out.setdefault(kind, []).append(item)

    def left_out(self) -> list[str]:
        """Lines about all that is left out: number and kind, with an example each."""
        return [f"{len(items)} {kind}, such as {_shown(min(items))}" for kind, items in sorted(self._left_out.items())]

    def describe(self) -> list[str]:
        """Blocks of lines, one for each violated rule."""
        return [self._describe(rule) for rule in self._items]

    def raise_if_any(self, headline: str) -> None:
        """Raise ValueError with `headline` and all problems by rule, with counts; long lists are shortened.

        The files that are left out follow, because a missing one may be among them.
        """
        if self:
            left_out = [f"  left out: {line}" for line in self.left_out()]
            raise ValueError("\n".join([headline, *self.describe(), *left_out]))

    def _describe(self, rule: Rule) -> str:
        items = sorted(self._items[rule])
        lines = [f"  {rule.broken}: {len(items)}", *(f"    {_shown(item)}" for item in items[:_LONGEST_LIST])]
        if len(items) > _LONGEST_LIST:
            lines.append(f"    ... and {len(items) - _LONGEST_LIST} more")
        return "\n".join([*lines, f"    fix: {rule.fix}"])


def _shown(item: str) -> str:
    """An item on one line: names of files may hold line ends and other control characters."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda mark: repr(mark[0])[1:-1], item)
