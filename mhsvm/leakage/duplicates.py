"""Near-duplicates: pictures of the same lesion, inside one set or between two.

Public sets hold lesions twice, with other colours, framing or compression; a split that puts one copy into
training and the other into test measures memory. Perceptual signatures propose pairs, and aligning their fine
structure confirms them: passes of growing resolution, each of which drops what cannot be the same.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from mhsvm.leakage import alignment, perceptual_hash

# Raised with every change of what is found: what an older search found is then not taken for its result.
VERSION = 2

# Seen on the 2150 training and validation images of ISIC 2017, every pair above 0.45 looked at: 37 pairs of one
# lesion from 1.00 down to 0.546, one undecided at 0.508, different lesions up to 0.515. In PH2 one pair at 0.66,
# others up to 0.44; between the two sets up to 0.44.
DEFAULT_THRESHOLD = 0.53
# The same lesions score at least 0.79, 0.79 and 0.44 in the passes before the last.
_MIN_COARSE, _MIN_MIDDLE, _MIN_FIRST_FINE = 0.76, 0.76, 0.36
# Pairs that each comparison of signatures proposes, for each image; in a small set it proposes every pair. Twice as
# many take twice the time, find no other pair of one lesion in ISIC 2017, and let two of different ones score 0.53.
_PROPOSALS_PER_IMAGE, _MIN_PROPOSALS = 2, 500
# Cut off all around half-size pictures to compare their middle, 84 % of each side, with whole frames.
_MARGIN = 5
# Degrees by which one of two pictures is turned about its lesion, to find the same lesion seen at another angle.
_LESION_TURNS = (-15, 15)
# Mirrored or turned copies have to be alike from the start: lesions are round enough to fit another one somehow.
_MIN_TURNED_LIKENESS = 0.9
# Side in pixels at which pictures are compared last; smaller ones lack the structure that tells lesions apart.
MIN_SIDE = 128
_ROWS_AT_ONCE = 1024

# A list of images of any sizes, or an array (n, h, w, 3).
Images = Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True, order=True)
class DuplicatePair:
    """Two images of one lesion.

    Args:
        id_a, id_b: Their ids; of the first and the second set where two were compared.
        score: Correlation of their fine structure once aligned, 1 for copies.
    """

    id_a: str
    id_b: str
    score: float


def find_duplicates(
    images_a: Images,
    ids_a: Sequence[str],
    images_b: Images | None = None,
    ids_b: Sequence[str] | None = None,
    *,
    threshold: float = DEFAULT_THRESHOLD,
) -> list[DuplicatePair]:
    """Find images that show the same lesion.

    Copies that were recoloured, compressed, shifted, cropped to 90 % of each side or turned by 10 degrees are
    found; of those cropped to 80 % or turned by 20 degrees about three quarters, and hardly any cropped to 70 %.
    So are copies that were mirrored or turned by a multiple of 90 degrees and not cropped. Time grows with the
    number of images, but for the signatures, which are compared all with all: 2000 images take about 25 s,
    10,000 two to three minutes and 4 GB.

    Args:
        images_a: uint8 images (h, w, 3), or one array (n, h, w, 3).
        ids_a: Their ids.
        images_b, ids_b: A second set: pairs are then of one image of each, never inside one.
        threshold: Least score of a pair, 0 to 1.
    Returns:
        Pairs, best first.
    Raises:
        ValueError: Images and ids do not match, or an image is not uint8 (h, w, 3).
    """
    _check(images_a, ids_a, "a")
    if (images_b is None) != (ids_b is None):
        raise ValueError("a second set is images_b and ids_b together, got only one of them")
    if images_b is None or ids_b is None:
        images_b, ids_b = [], []
        in_b = np.ones(len(ids_a), bool)
    else:
        _check(images_b, ids_b, "b")
        in_b = np.arange(len(ids_a) + len(ids_b)) >= len(ids_a)
    in_a = np.arange(len(in_b)) < len(ids_a)
    ids = [*ids_a, *ids_b]
    images = [*images_a, *images_b]
    if not images:
        return []
    copies = _copies(images)
    greys = np.stack([_grey(images[rows[0]]) for rows in copies])
    # A picture stands for its copies, which may lie in either set.
    sides = (np.array([any(side[row] for row in rows) for rows in copies]) for side in (in_a, in_b))
    scores = {(number, number): 1.0 for number in range(len(copies))}
    with _one_thread():
        scores |= _confirm(greys, _propose(greys, *sides), threshold)
    found = {}
    for (one, other), score in scores.items():
        for row, column in itertools.product(copies[one], copies[other]):
            row, column = min(row, column), max(row, column)
            if row < column and in_a[row] and in_b[column]:
                found[row, column] = DuplicatePair(ids[row], ids[column], score)
    return sorted(found.values(), key=lambda pair: (-pair.score, pair))


def merge_groups(ids: Sequence[str], groups: Sequence[str], pairs: Sequence[DuplicatePair]) -> tuple[str, ...]:
    """Join groups that pairs link; a group is then called like its first member's, or after its first id."""
    leader = {image_id: image_id for image_id in ids}

    def find(image_id: str) -> str:
        while leader[image_id] != image_id:
            image_id = leader[image_id]
        return image_id

    first_of_group: dict[str, str] = {}
    links = [
        (first_of_group.setdefault(group, image_id), image_id)
        for image_id, group in zip(ids, groups, strict=True)
        if group
    ]
    for one, other in itertools.chain(links, ((pair.id_a, pair.id_b) for pair in pairs)):
        leader[find(other)] = find(one)
    members: dict[str, list[int]] = {}
    for row, image_id in enumerate(ids):
        members.setdefault(find(image_id), []).append(row)
    merged = list(groups)
    for rows in members.values():
        if len(rows) > 1:
            name = next((groups[row] for row in rows if groups[row]), f"like {ids[rows[0]]}")
            for row in rows:
                merged[row] = name
    return tuple(merged)


def _check(images: Images, ids: Sequence[str], name: str) -> None:
    if len(images) != len(ids):
        raise ValueError(f"every image has an id, got {len(images)} images_{name} and {len(ids)} ids_{name}")
    for image_id, image in zip(ids, images, strict=True):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"images are uint8 (h, w, 3), {image_id} is {image.dtype} {image.shape}: convert it to 8-bit RGB"
            )


def _copies(images: Images) -> list[list[int]]:
    """Rows of equal pixels, in the order of their first."""
    rows: dict[tuple[tuple[int, ...], bytes], list[int]] = {}
    for row, image in enumerate(images):
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        rows.setdefault((image.shape, digest), []).append(row)
    return list(rows.values())


def _grey(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(image).convert("L").resize((MIN_SIDE, MIN_SIDE), Image.Resampling.BOX)
    return np.asarray(grey, np.float32)


def _halve(greys: np.ndarray) -> np.ndarray:
    num, side, _ = greys.shape
    return greys.reshape(num, side // 2, 2, side // 2, 2).mean((2, 4))


def _propose(greys: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """What may be the same: (p, 3), row of a, row of b and the number of the symmetry that b is seen in."""
    small = _halve(greys)
    detail = alignment.detail(small, finest=1.5, coarsest=8).numpy()
    spectra = perceptual_hash.spectra(detail)
    frame = perceptual_hash.signatures(spectra)
    zoomed = perceptual_hash.signatures(perceptual_hash.spectra(detail[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]))
    lesion, *turned_lesions = (
        perceptual_hash.signatures(perceptual_hash.spectra(perceptual_hash.centre_on_lesion(small, degrees=degrees)))
        for degrees in (0, *_LESION_TURNS)
    )
    plain: set[tuple[int, int]] = set()
    for first, second in (
        (frame, frame),
        (frame, zoomed),
        (zoomed, frame),
        (lesion, lesion),
        *((lesion, turned) for turned in turned_lesions),
    ):
        plain.update(_most_alike(first, second, -1.0, in_a, in_b))
    candidates = [(*pair, 0) for pair in sorted(plain)]
    for number, symmetry in list(enumerate(perceptual_hash.SYMMETRIES))[1:]:
        turned = perceptual_hash.signatures(spectra, symmetry)
        pairs = _most_alike(frame, turned, _MIN_TURNED_LIKENESS, in_a, in_b)
        candidates += [(*pair, number) for pair in pairs]
    return np.array(candidates, int).reshape(-1, 3)


def _most_alike(
    first: np.ndarray, second: np.ndarray, least: float, in_a: np.ndarray, in_b: np.ndarray
) -> list[tuple[int, int]]:
    """The pairs (row of a, row of b) whose signatures, `first` of a and `second` of b, are most alike."""
    rows, columns = np.flatnonzero(in_a), np.flatnonzero(in_b)
    num = max(_MIN_PROPOSALS, _PROPOSALS_PER_IMAGE * len(first))
    found = [np.empty((0, 3))]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        likeness = first[block] @ second[columns].T
        # A pair of two pictures of both sets is looked at once, a picture with itself never.
        likeness[(block[:, None] >= columns) & in_b[block][:, None] & in_a[columns]] = -2
        flat = likeness.ravel()
        top = np.argpartition(flat, -num)[-num:] if num < len(flat) else np.arange(len(flat))
        top = top[flat[top] >= least]
        found.append(np.stack([flat[top], block[top // len(columns)], columns[top % len(columns)]], axis=1))
    pairs = np.concatenate(found)
    best = np.argsort(-pairs[:, 0], kind="stable")[:num]
    return [(int(one), int(other)) for _, one, other in pairs[best]]


def _confirm(greys: np.ndarray, candidates: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    """Align candidates at a quarter, a half and all of the resolution; score those that pass."""
    half = _halve(greys)
    maps, scores = torch.empty(0), torch.empty(0)
    # Gauss-Newton steps; finest and coarsest structure in pixels; least score.
    passes = (
        (_halve(half), 0, (0.5, 2.5), _MIN_COARSE),
        (half, 5, (0.7, 5.0), _MIN_MIDDLE),
        (greys, 1, (0.7, 3.0), min(_MIN_FIRST_FINE, threshold)),
        (greys, 6, (0.7, 3.0), threshold),
    )
    for pictures, steps, (finest, coarsest), least in passes:
        if not len(candidates):
            break
        used, places = np.unique(candidates[:, :2], return_inverse=True)
        details = alignment.detail(pictures[used], finest=finest, coarsest=coarsest)
        first, second = (details[column] for column in places.reshape(-1, 2).T)
        second = _turned(second, candidates[:, 2])
        if steps:
            maps, scores = alignment.refine(first, second, maps, steps=steps)
        else:
            maps, scores = alignment.search(first, second)
        kept = (scores >= least).numpy()
        candidates, maps, scores = candidates[kept], maps[kept], scores[kept]
    confirmed: dict[tuple[int, int], float] = {}
    for (one, other, _), score in zip(candidates.tolist(), scores.clamp(max=1).tolist(), strict=True):
        confirmed[one, other] = max(score, confirmed.get((one, other), 0.0))
    return confirmed


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from sharing out tensors this small: it gains nothing, and costs tenfold on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _turned(details: torch.Tensor, symmetries: np.ndarray) -> torch.Tensor:
    """Each picture (p, s, s) seen in its symmetry."""
    for number in np.unique(symmetries[symmetries > 0]):
        chosen = symmetries == number
        seen = perceptual_hash.apply_symmetry(details[chosen].numpy(), perceptual_hash.SYMMETRIES[number])
        details[chosen] = torch.from_numpy(seen.copy())
    return details
