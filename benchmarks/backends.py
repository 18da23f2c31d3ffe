"""Which backends a benchmark compares."""

from collections.abc import Sequence

from torch import Tensor

from mhsvm.ops.dispatch import Backend, all_backends, choose_backend


def choose_candidates(names: Sequence[str] | None, u: Tensor, A: Tensor) -> tuple[list[Backend], dict[str, str]]:
    """The backends to compare on inputs like these, and why others were left out, by name.

    Args:
        names: Backends asked for; None takes all that "auto" may choose and that can run, and skips the others.
        u, A: Arguments of the scan, for their device, type and size.
    Raises:
        ValueError: One asked for is unknown or cannot run.
    """
    if names is not None:
        return [choose_backend(name, u, A) for name in names], {}
    rows = [row for row in all_backends() if row.automatic]
    reasons = {row.name: row.reason_against(u, A) for row in rows}
    return [row for row in rows if reasons[row.name] is None], {name: why for name, why in reasons.items() if why}
