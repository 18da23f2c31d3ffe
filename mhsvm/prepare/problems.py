"""All that is wrong with a source, told at once."""

import threading
from dataclasses import dataclass

_LONGEST_LIST = 10


@dataclass(frozen=True)
class Rule:
    """Something that a source must fulfil: what it is called when broken, and what most likely helps."""

    broken: str
    fix: str


class Problems:
    """Collects broken rules, from several threads at once, and raises them as one error."""

    def __init__(self) -> None:
        self._items: dict[Rule, list[str]] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, rule: Rule, item: str) -> None:
        """Note that `item`, an id or a file with what was found there, breaks `rule`."""
        with self._lock:
            self._items.setdefault(rule, []).append(item)

    def raise_if_any(self, headline: str) -> None:
        """Raise ValueError with `headline` and all problems, by rule, with counts; long lists are cut."""
        if self:
            raise ValueError("\n".join([headline, *(self._describe(rule) for rule in self._items)]))

    def _describe(self, rule: Rule) -> str:
        items = sorted(self._items[rule])
        lines = [f"  {rule.broken}: {len(items)}", *(f"    {item}" for item in items[:_LONGEST_LIST])]
        if len(items) > _LONGEST_LIST:
            lines.append(f"    ... and {len(items) - _LONGEST_LIST} more")
        return "\n".join([*lines, f"    fix: {rule.fix}"])
