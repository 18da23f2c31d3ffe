"""`mhsvm leaks A [B]`: images that a set holds twice, or that two sets have in common."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import size
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.data.split_file import Split
    from mhsvm.leakage import Leak
    from mhsvm.store import PreparedSet

# Pairs of parts of a split that must have no image in common.
_CROSSINGS = (("train", "test"), ("val", "test"), ("train", "val"))


def main(argv: Sequence[str] | None = None) -> int:
    """Find equal images and images of one lesion, in a set or between two."""
    arguments = parser().parse_args(argv)
    if arguments.split is not None and arguments.other is not None:
        raise ValueError("--split names the parts of one set: omit it, or name one set only")
    from mhsvm.assemble import build_split
    from mhsvm.leakage import find_leaks, mask_lines, write_leaks
    from mhsvm.prepare.sets import DEFAULT_SIZE, find_set, open_set, require_size
    from mhsvm.result_folder import ResultFolder

    with ExitStack() as stack, logging_to(ConsoleHandler()):
        first, second = (
            stack.enter_context(open_set(find_set(name), size=arguments.size or DEFAULT_SIZE))
            for name in (arguments.set, arguments.other or arguments.set)
        )
        for prepared in (first, second):
            require_size(prepared, arguments.size, setting="--size")
        folder = arguments.folder or _default_folder(first, arguments)
        names = ("pairs", *(f"{source}-{target}" for source, target in _CROSSINGS))
        results = ResultFolder(
            kind="a search",
            main="pairs.csv",
            mark=b"kind,id_a,id_b",
            others=tuple(f"{name}{ending}" for name in names for ending in (".csv", "-*.png")),
        )
        results.check(folder)
        split = None if arguments.split is None else build_split(arguments.split, first)
        leaks = find_leaks(first, None if arguments.other is None else second)
        for prepared in (first, second) if arguments.other else (first,):
            print(f"{prepared.name} ({prepared.path}): {len(prepared)} images, checksum {prepared.checksum[:12]}")
        print(_count_line(leaks))
        for line in mask_lines(leaks, first, second):
            print(line)
        with results.replace(folder) as partial:
            write_leaks(partial, leaks, first, second, name="pairs")
            if split is not None:
                _print_crossings(partial, leaks, split, first)
        print(f"all pairs, and contact sheets of those that are not equal: {folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("leaks"),
        description=main.__doc__,
        examples=(
            "isic2017 --split wu-sorted",
            "isic2017 ph2",
        ),
    )
    parser.add_argument("set", metavar="A", help="name in data/, prepared file or folder")
    parser.add_argument("other", nargs="?", metavar="B", help="another set; each pair is then one image of each")
    parser.add_argument("--split", metavar="NAME", help="list the pairs that this split of A separates")
    parser.add_argument("--size", type=size, metavar="S|HxW", help="of folders, default 256; prepared sets have one")
    parser.add_argument("--out", dest="folder", type=Path, metavar="FOLDER", help="default: results/leaks/A or A-B")
    return parser


def _default_folder(first: PreparedSet, arguments: argparse.Namespace) -> Path:
    names = [first.name, arguments.other and Path(arguments.other).stem, arguments.split]
    return Path("results/leaks") / re.sub(r"[^\w.-]+", "-", "-".join(name for name in names if name))


def _count_line(leaks: Sequence[Leak]) -> str:
    counts = Counter(leak.kind for leak in leaks)
    found = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    return f"{len(leaks)} pairs by kind: {found}" if leaks else "no pairs"


def _print_crossings(folder: Path, leaks: Sequence[Leak], split: Split, prepared: PreparedSet) -> None:
    from mhsvm.leakage import leaks_between, write_leaks

    print(f"split {split.name}, sha256 {split.hash}")
    for source, target in _CROSSINGS:
        crossing = leaks_between(leaks, split.ids(source), split.ids(target))
        hit = sorted({leak.id_b for leak in crossing})
        print(f"{source} -> {target}: {len(hit)} of {len(split.ids(target))} {target} images have a counterpart")
        for leak in crossing:
            # parts may overlap, such as val and test of vmunet-7-3: their common ids are only counted
            if leak.id_a != leak.id_b:
                print(f"  {leak.id_b} is like {leak.id_a} ({leak.kind}, {leak.score:.3f})")
        write_leaks(folder, crossing, prepared, prepared, name=f"{source}-{target}")
