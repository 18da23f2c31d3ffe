"""`mhsvm download`: the official archives of a public set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.options import positive
from mhsvm.cli.parser import CommandParser, program
from mhsvm.download.archives import DOWNLOADS, list_downloads
from mhsvm.table import format_table

if TYPE_CHECKING:
    from mhsvm.download.archives import Download


def main(argv: Sequence[str] | None = None) -> int:
    """Download a set; print each file, and the command that prepares it."""
    arguments = parser().parse_args(argv)
    entry = DOWNLOADS[arguments.set]
    from mhsvm.download.sets import download_set, select

    if arguments.list:
        archives = select(entry, arguments.parts)
        rows = [(archive.name, _size(archive.num_bytes), " ".join(archive.checksum)) for archive in archives]
        print(f"{entry.title}\nlicense: {entry.license}, see {entry.terms}")
        print(format_table(("file", "bytes", "checksum"), rows))
        print(*filter(None, [entry.manual]), sep="\n", end="\n" if entry.manual else "")
        return 0
    if arguments.out is None:
        raise ValueError("give the folder to download into with `out`")
    accepted = arguments.accept_license or _ask(entry)
    files = download_set(
        arguments.set,
        arguments.out,
        parts=arguments.parts,
        accept_license=accepted,
        url=arguments.url,
        mirror=arguments.mirror,
        timeout=arguments.timeout,
        retries=arguments.retries,
        progress=True,
    )
    for file in files:
        print(f"{file.path}: {'was complete' if file.was_there else 'complete'}, verified by {file.verified_by}")
    if entry.manual:
        print(entry.manual)
    print(f"next: mhsvm prepare {arguments.set} --source {arguments.out} --out data/{arguments.set}.h5")
    return 0


def _ask(entry: Download) -> bool:
    """Ask in a terminal whether the license is accepted; elsewhere the answer is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{entry.title}\nlicense: {entry.license}, see {entry.terms}", file=sys.stderr)
    print("Do you accept it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _size(num_bytes: int | None) -> str:
    return "not known" if num_bytes is None else f"{num_bytes:,}"


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("download"),
        description="Download the official archives of a public set. An interrupted download goes on where it ended.",
        examples=(
            "isic2018 --out downloads",
            "isic2017 --part train val --out downloads --accept-license",
            "ham10000 --list",
        ),
    )
    parser.add_argument("set", help=f"which data set: {', '.join(list_downloads())}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to download into, such as downloads")
    parser.add_argument(
        "--part", dest="parts", nargs="+", metavar="PART", help="parts of the set, such as train; default: all"
    )
    parser.add_argument(
        "--accept-license", action="store_true", help="accept the license, which is asked for otherwise"
    )
    parser.add_argument("--mirror", metavar="URL", help="address of a folder that has the files under their names")
    parser.add_argument(
        "--url", nargs="+", default=[], metavar="NAME=URL", help="another place of a file; URL alone for a single file"
    )
    parser.add_argument("--list", action="store_true", help="print the files and the license, and download nothing")
    parser.add_argument(
        "--timeout", default=60, type=positive, metavar="S", help="seconds to wait for a byte of the server, default 60"
    )
    parser.add_argument(
        "--retries", default=6, type=positive, metavar="N", help="failed connections in a row, default 6"
    )
    return parser
