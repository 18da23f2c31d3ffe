"""Problems of a source, collected and raised together."""

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
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._items)

    def __contains__(self, rule: object) -> bool:
        return rule in self._items

    def add(self, rule: Rule, item: str) -> None:
        """Record that `item`, an id or a file with details, violates `rule`."""
        with self._lock:
            self._items.setdefault(rule, []).append(item)

    def raise_if_any(self, headline: str) -> None:
        """Raise ValueError with `headline` and all problems by rule, with counts; long lists are shortened."""
        if self:
            raise ValueError("\n".join([headline, *(self._describe(rule) for rule in self._items)]))

    def _describe(self, rule: Rule) -> str:
        items = sorted(self._items[rule])
        lines = [f"  {rule.broken}: {len(items)}", *(f"    {item}" for item in items[:_LONGEST_LIST])]
        if len(items) > _LONGEST_LIST:
            lines.append(f"    ... and {len(items) - _LONGEST_LIST} more")
        return "\n".join([*lines, f"    fix: {rule.fix}"])
