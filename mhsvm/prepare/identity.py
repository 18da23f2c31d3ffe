"""Which set the files of a source are, and the name that says so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import is_read
from mhsvm.prepare.official import OfficialFolder, official_origin, recognize
from mhsvm.prepare.pairs import Pair
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.sources import SOURCES, Source
from mhsvm.store import SYNTHETIC_MARKER

OTHER_SET = Rule("files of another set than the one that was named", "prepare them under their own name")


def left_out_files(files: Sequence[SourceFile], source: Source) -> dict[str, int]:
    """Number of images and masks in official folders of other sets and tasks, by these."""
    readable = [file.name for file in files if is_read(file.name)]
    return dict(Counter(str(origin) for name in readable if (origin := source.leaves_out(name)) is not None))


def check_identity(pairs: Sequence[Pair], left_out: Mapping[str, int], source: Source, problems: Problems) -> None:
    """Add a problem if the files are those of another public set, by their folders or by their ids.

    Args:
        pairs: Pairs of the source.
        left_out: Result of `left_out_files`.
        source: The named source.
        problems: Receives `OTHER_SET`, with the way to prepare such files.
    """
    if not pairs:
        for origin, count in left_out.items():
            problems.add(OTHER_SET, f"{count} images and masks of {origin}: {_advice(origin)}")
    if not pairs or not source.official:
        return
    columns = [(pair.id, pair.mask.name, pair.subset) for pair in pairs]
    recognized = recognize(*zip(*columns, strict=True))
    if recognized not in (None, source.official):
        reason = f"{len(pairs)} pairs such as {pairs[0].mask.name} are those of {recognized}, not of {source.official}"
        problems.add(OTHER_SET, f"{reason}: {_advice(recognized)}")


def is_synthetic(files: Sequence[SourceFile]) -> bool:
    """Whether `mhsvm synthesize` has marked a folder or archive among the files."""
    return any(PurePosixPath(file.name).name == SYNTHETIC_MARKER for file in files)


def set_name(name: str, source: str, pairs: Sequence[Pair], *, synthetic: bool) -> str:
    """The name of a set, which does not claim to be a public set, or real images, that its files are not."""
    if source == "folder" and name in SOURCES:
        named = SOURCES[name]
        columns = [(pair.id, pair.mask.name, pair.subset) for pair in pairs]
        origins = {recognize(*zip(*columns, strict=True)), *(_set_of(pair) for pair in pairs)} - {None}
        fits = all(named.is_id(pair.id, pair.image.name) for pair in pairs) and origins <= {named.official}
        name = name if fits else f"folder-{name}"
    return f"synthetic-{name}" if synthetic and "synthetic" not in name.lower() else name


def _set_of(pair: Pair) -> str | None:
    origin = official_origin(pair.mask.name)
    return None if origin is None else origin.set


def _advice(origin: str) -> str:
    """The way to prepare files of an official set."""
    if " task" in origin or " part" in origin:
        set_, _, task = origin.rpartition(" ")
        if not OfficialFolder(set_, task, "", "").segments:
            return "they have no masks of lesions"
    own = [name for name, source in SOURCES.items() if source.official and origin.startswith(source.official)]
    if own:
        return f"prepare {own[0]}"
    return f"prepare folder, with `name` {origin.split(' part')[0].replace(' ', '').lower()}"
