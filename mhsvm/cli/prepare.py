"""`mhsvm prepare`: from the official archives, or own folders, to one prepared file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.options import add_plugins_option, size
from mhsvm.cli.parser import CommandParser, program
from mhsvm.prepare.sources import list_sources

if TYPE_CHECKING:
    from mhsvm.prepare.pipeline import Summary


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a data set; print a summary."""
    arguments = parser().parse_args(argv)
    from mhsvm.plugins import import_plugins
    from mhsvm.prepare.pipeline import prepare_set

    import_plugins(arguments.plugins)
    summary = prepare_set(
        arguments.set,
        arguments.source,
        arguments.out,
        name=arguments.name,
        size=arguments.size,
        num_classes=arguments.num_classes,
        threshold=arguments.threshold,
        mask_suffix=arguments.mask_suffix,
        raters=arguments.raters,
        merge_masks=arguments.merge_masks,
        limit=arguments.limit,
        num_workers=arguments.num_workers,
        overwrite=arguments.overwrite,
        progress=True,
    )
    subsets = ", ".join(f"{count} {subset or 'without subset'}" for subset, count in summary.subsets.items())
    print(f"{summary.path}: {summary.num_samples} images with masks ({subsets}) in {summary.seconds:.1f} s")
    print(f"name {summary.name}")
    if summary.raters:
        raters = f"{len(summary.raters)} raters ({', '.join(summary.raters)})"
        print(f"{summary.num_ratings} masks by {raters}; {summary.num_several} images have two or more")
    for origin, count in summary.left_out.items():
        print(f"left out: {count} images and masks of {origin}")
    if summary.num_empty:
        print(f"{summary.num_empty} of the masks show no lesion")
    for fact in summary.facts:
        print(f"note: {fact}")
    for warning in _warnings(summary, num_classes=arguments.num_classes):
        print(f"warning: {warning}")
    for line in summary.skipped:
        print(f"left out: {line}")
    print(f"checksum {summary.checksum}")
    return 0


def _warnings(summary: Summary, *, num_classes: int) -> list[str]:
    lines = []
    if summary.num_only_ignored:
        lines.append(
            f"{summary.num_only_ignored} of the masks hold nothing but 0 and 255, which means ignore: a class is "
            "saved as its number, class 1 as 1"
        )
    if num_classes > 1 and summary.absent:
        lines.append(f"no prepared mask holds class {', '.join(map(str, summary.absent))}")
    elif summary.absent:
        lines.append("no mask shows a lesion")
    return lines


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("prepare"),
        description="Turn a data set into one prepared file.",
        examples=(
            "isic2017 --source ISIC-2017_*.zip --out data/isic2017.h5",
            "folder --source my-lesions --out data/mine.h5",
        ),
    )
    parser.add_argument("set", help=f"which data set: {', '.join(list_sources())} (folder is for your own)")
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        type=Path,
        metavar="PATH",
        help="folders, unextracted zip files, files and lists of files in any mix, or one folder that holds them",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="such as data/isic2017.h5")
    parser.add_argument("--name", help="of the set; default: SET, for a folder the name of FILE")
    parser.add_argument("--size", default="256", type=size, metavar="S|HxW", help="in pixels, default 256")
    parser.add_argument("--num-classes", default=1, type=int, metavar="K", help="2 or more for class-index masks")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="for masks with gray levels: lesion from this fraction of full scale on, such as 0.5",
    )
    parser.add_argument(
        "--mask-suffix", metavar="END", help="of the masks' names, such as _seg2; usual ones, such as _mask, are known"
    )
    parser.add_argument(
        "--raters",
        nargs="*",
        metavar="NAME",
        help="several masks an image: raters by folder (masks/NAME/a.png) or end of name (a_NAME.png); "
        "without names they are found",
    )
    parser.add_argument(
        "--merge-masks",
        action="store_true",
        help="several masks of an image are parts of one, as a_mask.png and a_mask_1.png",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="prepare N images at most, equally from each subset, for a quick try"
    )
    parser.add_argument("--workers", dest="num_workers", type=int, metavar="N", help="threads, default one per core")
    add_plugins_option(parser, "for data sets")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser
