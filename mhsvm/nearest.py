"""The known name that is nearest to a misspelled one."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Find the known name most like `word`, in upper or lower case; None if none has a similarity of `cutoff`."""
    lowercase = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(lowercase), n=1, cutoff=cutoff)
    return lowercase[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence for the end of a message about an unknown name, with a space before it; "" if no name is near."""
    near = nearest(word, known)
    return "" if near is None else f". Did you mean {near!r}?"
