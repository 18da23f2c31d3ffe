"""Which backends a benchmark compares."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mhsvm.ops.backends import find_backend
from mhsvm.ops.dispatch import Implementation
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN


def choose_candidates(
    names: Sequence[str] | None, inputs: Mapping[str, Tensor]
) -> tuple[list[Implementation], dict[str, str]]:
    """The scans to compare on these inputs, and why others were left out, by name.

    Args:
        names: Backends asked for; None takes all that "auto" may choose and that can run, and skips the others.
        inputs: Arguments of the scan.
    Raises:
        ValueError: One asked for is unknown or cannot run.
    """
    if names is not None:
        return [SELECTIVE_SCAN.choose(name, **inputs) for name in names], {}
    scans = [scan for scan in SELECTIVE_SCAN.implementations() if find_backend(scan.backend).automatic]
    reasons = {scan.backend: scan.reason_against(**inputs) for scan in scans}
    skipped = {name: why for name, why in reasons.items() if why}
    return [scan for scan in scans if scan.backend not in skipped], skipped
