"""Prepare a data set: decode, check, resize and write every image once.

The work runs in threads, because decoding, decompressing and resizing release Python's lock and use all cores. Unlike
processes, threads need no start and no copies, and none remains when the command is killed.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mhsvm.prepare.archive import SourceFile, source_checksums
from mhsvm.prepare.conversion import Conversion
from mhsvm.prepare.decode import IGNORE, check_threshold
from mhsvm.prepare.groups import missing_groups, read_groups
from mhsvm.prepare.headers import check_headers
from mhsvm.prepare.identity import OTHER_SET, check_identity, is_synthetic, left_out_files, set_name
from mhsvm.prepare.limit import first_pairs
from mhsvm.prepare.out_path import check_out, check_space
from mhsvm.prepare.pairs import Pair, find_pairs
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.raters import RaterNames
from mhsvm.prepare.resize import CLASS_METHOD, IMAGE_METHOD, MASK_METHOD, Size, as_height_width
from mhsvm.prepare.sources import SOURCES, Source
from mhsvm.prepare.subset_files import missing_lists, read_subsets
from mhsvm.prepare.walk import open_sources
from mhsvm.store import SYNTHETIC, Sample, write_set
from mhsvm.store.hdf5 import AttributeValue
from mhsvm.system import num_cores
from mhsvm.threads import in_order
from mhsvm.version import __version__

# Attribute of a set: result of `pairs_digest` for the files that it was prepared from.
PAIRS = "pairs"
# Attributes of a set: the threshold that made masks with gray levels binary, and the ending of its masks' names.
MASK_THRESHOLD, MASK_SUFFIX = "mask_threshold", "mask_suffix"
# Attribute of a set with several masks an image: the names of raters that were asked for, a line each.
RATERS = "raters"
# Attribute of a set in which several masks of an image were parts of one.
MERGED_MASKS = "merged_masks"
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
        facts: Lines about the set: missing tables of groups, coarse masks, equal files, a size that no network takes.
        skipped: Lines about all other files and folders that were left out, by kind.
        raters: The raters of a set with several masks an image, in their order.
        num_ratings, num_several: Number of their masks, and of images with masks of two raters or more.
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
    raters: tuple[str, ...] = ()
    num_ratings: int = 0
    num_several: int = 0


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
    raters: Sequence[str] | None = None,
    merge_masks: bool = False,
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
        raters: Names of the raters of a set with several masks an image, by folders as in masks/alice/a.png or by ends
            of names as in a_rater1.png, the most trusted first; an empty sequence finds them. The primary mask of an
            image is the one that names no rater, else that of the first rater. None takes one mask an image.
        merge_masks: Whether several masks of an image are parts of one, as in BUSI (a_mask.png and a_mask_1.png): a
            pixel is lesion if it is in one of them. Otherwise they are a problem.
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
    size, num_workers = as_height_width(size), _check_arguments(num_classes, threshold, num_workers)
    if merge_masks and num_classes > 1:
        raise ValueError("`merge_masks` is for lesion masks: a pixel of several class masks could be of two classes")
    check_out(out, source, overwrite=overwrite)
    headline = f"the source of {out} has problems, and nothing was written:"
    with open_sources([Path(path) for path in paths], problems) as files:
        pair_up = partial(find_pairs, mask_suffix=mask_suffix, raters=raters, merge_masks=merge_masks)
        found = _find(files, SOURCES[source], problems, headline, pair_up=pair_up, raters=raters, limit=limit)
        name = found.name(name or (out.stem if source == "folder" else source), source)
        check_headers(found.pairs, problems, num_workers=num_workers)
        # before images are decoded, which may take long
        problems.raise_if_any(headline)
        check_space(out, len(found.pairs), size)
        conversion = Conversion(
            size, num_classes=num_classes, threshold=threshold, groups=found.groups, problems=problems
        )
        converted = in_order(conversion.convert, found.pairs, num_workers=num_workers)
        hidden = None if progress else True
        bar = tqdm(converted, total=len(found.pairs), desc=out.name, unit="image", mininterval=0.5, disable=hidden)
        checksum = write_set(
            out,
            _while_good(bar, conversion, problems, headline),
            name=name,
            size=size,
            num_classes=num_classes,
            attributes={
                **_provenance(num_classes, files),
                "source": source,
                **({MASK_THRESHOLD: threshold} if threshold is not None else {}),
                **({MASK_SUFFIX: mask_suffix} if mask_suffix is not None else {}),
                **({RATERS: "\n".join(raters)} if raters is not None else {}),
                **({MERGED_MASKS: 1} if merge_masks else {}),
                **found.attributes(),
                **(attributes or {}),
            },
            total=len(found.pairs),
            raters=found.raters,
        )
    return Summary(
        path=out,
        num_samples=len(found.pairs),
        subsets=dict(Counter(pair.subset for pair in found.pairs)),
        num_empty=conversion.num_empty,
        checksum=checksum,
        seconds=time.perf_counter() - start,
        num_only_ignored=conversion.levels.num_only_ignored,
        absent=conversion.absent,
        name=name,
        left_out=found.left_out,
        skipped=tuple(problems.left_out()),
        facts=(*found.notes, *conversion.facts.lines(out)),
        raters=found.raters,
        num_ratings=sum(len(pair.rated) for pair in found.pairs),
        num_several=sum(len(pair.rated) > 1 for pair in found.pairs),
    )


@dataclass(frozen=True)
class _Found:
    """The pairs of a source; those that a limit leaves, of `num_all`."""

    pairs: list[Pair]
    num_all: int
    groups: Mapping[str, str]
    left_out: Mapping[str, int]
    synthetic: bool
    raters: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def name(self, name: str, source: str) -> str:
        """The name of the set, by the one that it is given."""
        name = set_name(name, source, self.pairs, synthetic=self.synthetic)
        return name if len(self.pairs) == self.num_all else f"{name}-first-{len(self.pairs)}"

    def attributes(self) -> dict[str, AttributeValue]:
        return {
            PAIRS: pairs_digest(self.pairs),
            **({LIMIT: f"{len(self.pairs)} of {self.num_all}"} if len(self.pairs) < self.num_all else {}),
            **({SYNTHETIC: 1} if self.synthetic else {}),
        }


def _check_arguments(num_classes: int, threshold: float | None, num_workers: int | None) -> int:
    """Check the arguments that depend on no file, and return the number of threads."""
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"there are 1 to {IGNORE} classes, because {IGNORE} means ignore; got {num_classes}")
    check_threshold(threshold, num_classes)
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"at least 1 worker is needed; got {num_workers}")
    return num_workers or num_cores()


def _find(
    files: Sequence[SourceFile],
    source: Source,
    problems: Problems,
    headline: str,
    *,
    pair_up: Callable[[Sequence[SourceFile], Source, Problems], list[Pair]],
    raters: Sequence[str] | None,
    limit: int | None,
) -> _Found:
    """Find the pairs of a source; nothing of another set is read."""
    pairs = pair_up(files, source, problems)
    left_out = left_out_files(files, source)
    check_identity(pairs, left_out, source, problems)
    if OTHER_SET in problems:
        problems.put_first(OTHER_SET)
    if not pairs or OTHER_SET in problems:
        problems.raise_if_any(headline)
    ids = {pair.id for pair in pairs}
    groups, subsets = (read(files, source, ids, problems) for read in (read_groups, read_subsets))
    pairs = [replace(pair, subset=subsets.get(pair.id, pair.subset)) for pair in pairs]
    notes = (missing_groups(files, source, groups), missing_lists(files, source))
    kept = pairs if limit is None else first_pairs(pairs, limit)
    order = RaterNames(source, raters).order({each.rater for pair in kept for each in pair.rated})
    return _Found(kept, len(pairs), groups, left_out, is_synthetic(files), order, tuple(filter(None, notes)))


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """sha256 over the ids, raters and sizes in bytes of all files, the same in folders and archives of any names."""
    lines = []
    for pair in pairs:
        rated = "".join(f"\t{each.rater}\t{each.file.num_bytes}" for each in pair.rated)
        parts = "".join(f"\t{part.num_bytes}" for part in pair.parts)
        lines.append(f"{pair.id}\t{pair.image.num_bytes}\t{pair.mask.num_bytes}{parts}{rated}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _provenance(num_classes: int, files: Sequence[SourceFile]) -> dict[str, AttributeValue]:
    return {
        "mhsvm_version": __version__,
        "image_resizing": IMAGE_METHOD,
        "mask_resizing": MASK_METHOD if num_classes == 1 else CLASS_METHOD,
        "sources": source_checksums(files),
    }


def _while_good(
    converted: Iterable[Sample | None], conversion: Conversion, problems: Problems, headline: str
) -> Iterator[Sample]:
    """Yield samples until there is a problem; then check the rest and report all problems together."""
    for sample in converted:
        if sample is not None and not problems:
            conversion.add(sample)
            yield sample
    conversion.levels.note_lesion_masks(problems, "masks")
    problems.raise_if_any(headline)
