"""Prepare a data set: decode, check, resize and write every image once.

The work runs in threads, because decoding, decompressing and resizing release Python's lock and use all cores. Unlike
processes, threads need no start and no copies, and none remains when the command is killed.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mhsvm.prepare.archive import SourceFile, source_checksums
from mhsvm.prepare.class_levels import LevelTally
from mhsvm.prepare.decode import IGNORE, MaskLevelsError, check_threshold, decode_image, decode_mask
from mhsvm.prepare.facts import Facts
from mhsvm.prepare.groups import read_groups
from mhsvm.prepare.headers import UNREADABLE as UNREADABLE
from mhsvm.prepare.headers import check_headers, note_sizes
from mhsvm.prepare.identity import OTHER_SET, check_identity, is_synthetic, left_out_files, set_name
from mhsvm.prepare.limit import first_pairs
from mhsvm.prepare.out_path import check_out, check_space
from mhsvm.prepare.pairs import Pair, find_pairs
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.resize import (
    CLASS_METHOD,
    IMAGE_METHOD,
    MASK_METHOD,
    Size,
    as_height_width,
    mask_coverage,
    resize_classes,
    resize_image,
)
from mhsvm.prepare.sources import SOURCES
from mhsvm.prepare.walk import open_sources
from mhsvm.store import SYNTHETIC, Sample, write_set
from mhsvm.store.hdf5 import AttributeValue
from mhsvm.system import num_cores
from mhsvm.threads import in_order
from mhsvm.version import __version__

GRAY_LEVELS = Rule(
    "mask with other levels than black and white",
    "threshold it at half and save it as PNG (a JPEG always has gray levels); for class indices give `num_classes`. "
    "Or prepare the set with `threshold` 0.5: a pixel is then lesion from half of full scale on",
)
CLASSES = Rule("class mask with a level that is no class", "save indices 0..K-1 and 255 = ignore; K is `num_classes`")
# Attribute of a set: result of `pairs_digest` for the files that it was prepared from.
PAIRS = "pairs"
# Attributes of a set: the threshold that made masks with gray levels binary, and the ending of its masks' names.
MASK_THRESHOLD, MASK_SUFFIX = "mask_threshold", "mask_suffix"
# Attribute of a set that holds the first images only: their number, and that of all.
LIMIT = "limit"


@dataclass(frozen=True)
class Summary:
    """Summary of a preparation.

    Attributes:
        num_empty: Number of masks without lesion (no class but 0).
        num_only_ignored: Number of class masks that hold nothing but 0 and 255, which means ignore.
        absent: Classes from 1 on that no prepared mask holds; for lesion masks, 1 if none shows a lesion.
        name: Name of the set.
        left_out: Number of images and masks by the official set and task that they belong to instead.
        facts: Lines about images and masks: coarse masks, equal files, a size that no network takes.
        skipped: Lines about all other files and folders that were left out, by kind.
    """

    path: Path
    num_samples: int
    subsets: dict[str, int]
    num_empty: int
    checksum: str
    seconds: float
    num_only_ignored: int = 0
    absent: tuple[int, ...] = ()
    name: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


def prepare_set(
    source: str,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    size: Size = 256,
    num_classes: int = 1,
    threshold: float | None = None,
    mask_suffix: str | None = None,
    limit: int | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    attributes: dict[str, str] | None = None,
) -> Summary:
    """Prepare a data set from its folders or unextracted zip files.

    Args:
        source: A name from `list_sources()`.
        paths: Folders and zip files of the set, or one folder that contains them.
        out: HDF5 file to write.
        name: Name of the set. The default is the name of the source, for a folder that of `out`. A set with synthetic
            images is called synthetic-NAME.
        size: Size of all images and masks in pixels, as a number or (h, w).
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        threshold: Fraction of full scale, in (0, 1], at and above which a gray level of a mask is lesion; None refuses
            masks with gray levels.
        mask_suffix: End of the masks' names, such as "_seg2"; None takes usual ones, such as "_mask".
        limit: Prepare this number of images at most, equally from each subset, for a quick try. The set is then called
            NAME-first-LIMIT.
        num_workers: Number of threads; None takes one per core.
        overwrite: Whether `out` may be replaced.
        progress: Show a progress bar in a terminal.
        attributes: Additional attributes of the set.
    Returns:
        A summary.
    Raises:
        ValueError: An argument is wrong, or the source has problems, and nothing is written. All problems of names and
            headers are listed before images are decoded, then all problems of their content.
        FileExistsError: `out` exists and `overwrite` is not set.
    """
    start, out, problems = time.perf_counter(), Path(out), Problems()
    described, size = SOURCES[source], as_height_width(size)
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"there are 1 to {IGNORE} classes, because {IGNORE} means ignore; got {num_classes}")
    check_threshold(threshold, num_classes)
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"at least 1 worker is needed; got {num_workers}")
    check_out(out, source, overwrite=overwrite)
    headline = f"the source of {out} has problems, and nothing was written:"
    with open_sources([Path(path) for path in paths], problems) as files:
        pairs, left_out = (
            find_pairs(files, described, problems, mask_suffix=mask_suffix),
            left_out_files(files, described),
        )
        check_identity(pairs, left_out, described, problems)
        if not pairs or OTHER_SET in problems:
            # nothing of another set is read
            problems.raise_if_any(headline)
        synthetic = is_synthetic(files)
        name = set_name(name or (out.stem if source == "folder" else source), source, pairs, synthetic=synthetic)
        groups, num_pairs = read_groups(files, described, {pair.id for pair in pairs}, problems), len(pairs)
        if limit is not None and len(pairs := first_pairs(pairs, limit)) < num_pairs:
            name = f"{name}-first-{limit}"
        num_workers = num_workers or num_cores()
        check_headers(pairs, problems, num_workers=num_workers)
        # before images are decoded, which may take long
        problems.raise_if_any(headline)
        check_space(out, len(pairs), size)
        tally, facts = LevelTally(num_classes), Facts(size, num_classes)
        convert = partial(
            _convert,
            groups=groups,
            size=size,
            num_classes=num_classes,
            threshold=threshold,
            tally=tally,
            facts=facts,
            problems=problems,
        )
        converted = in_order(convert, pairs, num_workers=num_workers)
        hidden = None if progress else True
        bar = tqdm(converted, total=len(pairs), desc=out.name, unit="image", mininterval=0.5, disable=hidden)
        found = _Found()
        checksum = write_set(
            out,
            _while_good(bar, num_classes, tally, facts, problems, headline, found),
            name=name,
            size=size,
            num_classes=num_classes,
            attributes={
                **_provenance(num_classes, files),
                "source": source,
                **({MASK_THRESHOLD: threshold} if threshold is not None else {}),
                **({MASK_SUFFIX: mask_suffix} if mask_suffix is not None else {}),
                PAIRS: pairs_digest(pairs),
                **({LIMIT: f"{len(pairs)} of {num_pairs}"} if len(pairs) < num_pairs else {}),
                **({SYNTHETIC: 1} if synthetic else {}),
                **(attributes or {}),
            },
            total=len(pairs),
        )
    subsets = dict(Counter(pair.subset for pair in pairs))
    return Summary(
        path=out,
        num_samples=len(pairs),
        subsets=subsets,
        num_empty=found.num_empty,
        checksum=checksum,
        seconds=time.perf_counter() - start,
        num_only_ignored=tally.num_only_ignored,
        absent=tuple(label for label in range(1, max(num_classes, 2)) if not found.levels[label]),
        name=name,
        left_out=left_out,
        skipped=tuple(problems.left_out()),
        facts=facts.lines(out),
    )


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """sha256 over the ids and sizes in bytes of images and masks, the same in folders and archives of any names."""
    lines = [f"{pair.id}\t{pair.image.num_bytes}\t{pair.mask.num_bytes}\n" for pair in pairs]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _provenance(num_classes: int, files: Sequence[SourceFile]) -> dict[str, AttributeValue]:
    return {
        "mhsvm_version": __version__,
        "image_resizing": IMAGE_METHOD,
        "mask_resizing": MASK_METHOD if num_classes == 1 else CLASS_METHOD,
        "sources": source_checksums(files),
    }


class _Found:
    """The number of masks without lesion, which are allowed, and the levels that occur in prepared masks."""

    def __init__(self) -> None:
        self.num_empty = 0
        self.levels = np.zeros(IGNORE + 1, bool)

    def add(self, mask: np.ndarray, num_classes: int) -> None:
        lesion = mask if num_classes == 1 else mask % IGNORE
        self.num_empty += not lesion.any()
        # a pixel of a lesion mask is lesion from half coverage on
        self.levels[mask if num_classes > 1 else (mask >= 128).astype(np.uint8)] = True


def _while_good(
    converted: Iterable[Sample | None],
    num_classes: int,
    tally: LevelTally,
    facts: Facts,
    problems: Problems,
    headline: str,
    found: _Found,
) -> Iterator[Sample]:
    """Yield samples until there is a problem; then check the rest and report all problems together."""
    for sample in converted:
        if sample is not None and not problems:
            found.add(sample.mask, num_classes)
            facts.add_mask(sample)
            yield sample
    tally.note_lesion_masks(problems, "masks")
    problems.raise_if_any(headline)


def _convert(
    pair: Pair,
    *,
    groups: Mapping[str, str],
    size: tuple[int, int],
    num_classes: int,
    threshold: float | None,
    tally: LevelTally,
    facts: Facts,
    problems: Problems,
) -> Sample | None:
    """Decode, check and resize a pair; on an error, add it to `problems` and return None."""
    image = mask = None
    try:
        content = pair.image.read()
        facts.add_file(pair.id, content)
        image = decode_image(content)
    except ValueError as error:
        problems.add(UNREADABLE, f"{pair.image.name}: {error}")
    try:
        mask = decode_mask(pair.mask.read(), num_classes, threshold)
        tally.add(pair.mask.name, mask)
    except MaskLevelsError as error:
        problems.add(error.rule or (GRAY_LEVELS if num_classes == 1 else CLASSES), f"{pair.mask.name}: {error}")
    except ValueError as error:
        problems.add(UNREADABLE, f"{pair.mask.name}: {error}")
    if image is None or mask is None:
        return None
    if image.shape[:2] != mask.shape:
        note_sizes(pair.id, image.shape, mask.shape, problems)
        return None
    resized = mask_coverage(mask, size) if num_classes == 1 else resize_classes(mask, size, num_classes)
    return Sample(pair.id, resize_image(image, size), resized, mask.shape, pair.subset, groups.get(pair.id, ""))
