"""The processors that a container may use: the quota of its control groups, versions 1 and 2, on Linux."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mhsvm.text_file import split_lines


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Processors' worth of time that this process may use, rounded up; None without a limit.

    A group may use no more than each group that it is in, so the smallest quota counts.

    Args:
        root: Where proc and the mounted control groups are looked for.
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and Documentation/scheduler/sched-bwc.rst.
    """
    quotas = [quota for folder in _folders(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(root: Path) -> Iterator[Path]:
    """The folders of the groups that limit this process, of each hierarchy, up to where it is mounted."""
    groups = _own_groups(root)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind, options = before.split(), after.split()[:1], after.split()[2:3]
        if len(fields) < 5:
            continue
        controller = "" if kind == ["cgroup2"] else "cpu"
        if controller and (kind != ["cgroup"] or "cpu" not in ",".join(options).split(",")):
            continue
        mounted, folder = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        group = groups.get(controller, mounted)
        # a container may see its own group as the top, and its path as it is outside
        inside = group.relative_to(mounted) if group.is_relative_to(mounted) else PurePosixPath()
        if ".." not in inside.parts:
            yield from (folder / part for part in (inside, *inside.parents))


def _own_groups(root: Path) -> dict[str, PurePosixPath]:
    """The path of this process's group by controller; "" is version 2."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        groups.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    return groups


def _quota(folder: Path) -> int | None:
    """The quota of one group, from `cpu.max` ("max 100000", "150000 100000") or version 1's two files."""
    numbers = " ".join(_lines(folder / "cpu.max")).split()
    if not numbers:
        numbers = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    # no limit is "max", or -1 in version 1
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
        return None
    microseconds, period = map(int, numbers)
    return max(1, math.ceil(microseconds / period)) if period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return split_lines(path.read_bytes().decode(errors="replace"))
    except OSError:
        # not Linux, or a version without this file
        return []
