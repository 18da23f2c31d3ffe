"""Near-duplicates: images of the same lesion, in one set or between two.

Public sets contain some lesions twice, with other colors, framing or compression. A split with one copy in training
and the other in test measures memory. Perceptual signatures propose pairs. Alignment of their fine structure, in
passes of increasing resolution, confirms or rejects them.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.leakage import alignment, perceptual_hash
from mhsvm.leakage.small_copy import gray_copy, halve

# Increased with every change of the results, so that results of an older search are not reused.
VERSION = 3

# Every pair above 0.45 in the 2150 training and validation images of ISIC 2017 was inspected: 37 pairs of one lesion
# score 0.546 to 1.00, an unclear one 0.508, different lesions up to 0.515. In PH2 one pair scores 0.66, others up to
# 0.44; pairs between the two sets score up to 0.44.
DEFAULT_THRESHOLD = 0.53
# Least scores in the passes before the last; the same lesions score at least 0.79, 0.79 and 0.44 there.
_MIN_COARSE, _MIN_MIDDLE, _MIN_FIRST_FINE = 0.76, 0.76, 0.36
# Pairs that each comparison of signatures proposes, per image; in a small set, every pair. Twice as many take twice the
# time, find no further pair of one lesion in ISIC 2017, and let two pairs of different lesions reach 0.53.
_PROPOSALS_PER_IMAGE, _MIN_PROPOSALS = 2, 500
# Margin of half-size images; their middle, 84 % of each side, is compared with whole frames.
_MARGIN = 5
# Degrees by which one of two images is rotated about its lesion, to find the same lesion at another angle.
_LESION_ANGLES = (-15, 15)
# Mirrored or rotated copies need this similarity before alignment: lesions are round enough to fit each other.
_MIN_TRANSFORMED_SIMILARITY = 0.9
_ROWS_AT_ONCE = 1024

# A list of images of any sizes, or an array (n, h, w, 3).
Images = Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True, order=True)
class DuplicatePair:
    """Two images of one lesion.

    Args:
        id_a, id_b: Their ids, in the first and the second set if there are two.
        score: Correlation of their aligned fine structure, 1 for copies.
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
    original_sizes_a: np.ndarray | None = None,
    original_sizes_b: np.ndarray | None = None,
    threshold: float = DEFAULT_THRESHOLD,
) -> list[DuplicatePair]:
    """Find images that show the same lesion.

    Finds copies that were recolored, compressed, shifted, cropped to 90 % of each side or rotated by 10 degrees, about
    three quarters of those cropped to 80 % or rotated by 20 degrees, and few of those cropped to 70 %. Copies that were
    mirrored or rotated by a multiple of 90 degrees are found if they were not cropped. 2000 images take about 25 s;
    10,000 take two to three minutes and 4 GB.

    Args:
        images_a: uint8 images (h, w, 3), or one array (n, h, w, 3).
        ids_a: Their ids.
        images_b, ids_b: A second set; each pair is then an image of the first and one of the second.
        original_sizes_a, original_sizes_b: Height and width of each image before it was resized with an antialiased
            bilinear filter, (n, 2); None if images were not resized. Copies of other sizes are compared with the same
            sharpness, so that the result depends little on the size of the images.
        threshold: Least score of a pair, 0 to 1.
    Returns:
        Pairs, highest score first.
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
    sizes = [size for each in ((images_a, original_sizes_a), (images_b, original_sizes_b)) for size in _sizes(*each)]
    grays = np.stack([gray_copy(images[rows[0]], sizes[rows[0]]) for rows in copies])
    # one image represents all its copies, which may be in either set
    sides = (np.array([any(side[row] for row in rows) for rows in copies]) for side in (in_a, in_b))
    scores = {(number, number): 1.0 for number in range(len(copies))}
    with _one_thread(), tqdm(desc="near-duplicates", unit="pair", disable=None, dynamic_ncols=True) as bar:
        scores |= _confirm(grays, _propose(grays, *sides), threshold, bar)
    found = {}
    for (one, other), score in scores.items():
        for row, column in itertools.product(copies[one], copies[other]):
            row, column = min(row, column), max(row, column)
            if row < column and in_a[row] and in_b[column]:
                found[row, column] = DuplicatePair(ids[row], ids[column], score)
    return sorted(found.values(), key=lambda pair: (-pair.score, pair))


def merge_groups(ids: Sequence[str], groups: Sequence[str], pairs: Sequence[DuplicatePair]) -> tuple[str, ...]:
    """Merge groups that pairs link; a merged group has the first name of its members, or one made of its first id."""
    # imported here, as it adds a fifth to the time of importing this file
    from scipy.cluster.hierarchy import DisjointSet

    linked = DisjointSet(ids)
    first_of_group: dict[str, str] = {}
    links = [
        (first_of_group.setdefault(group, image_id), image_id)
        for image_id, group in zip(ids, groups, strict=True)
        if group
    ]
    for one, other in itertools.chain(links, ((pair.id_a, pair.id_b) for pair in pairs)):
        linked.merge(one, other)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    merged = list(groups)
    for members in linked.subsets():
        rows = sorted(row_of[image_id] for image_id in members)
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
    """Group rows with equal pixels, in the order of their first rows."""
    rows: dict[tuple[tuple[int, ...], bytes], list[int]] = {}
    for row, image in enumerate(images):
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        rows.setdefault((image.shape, digest), []).append(row)
    return list(rows.values())


def _sizes(images: Images, original_sizes: np.ndarray | None) -> list[tuple[int, int]]:
    if original_sizes is None:
        return [image.shape[:2] for image in images]
    return [(int(h), int(w)) for h, w in original_sizes]


def _propose(grays: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Propose pairs: (p, 3), row of a, row of b and the number of the symmetry applied to b."""
    small = halve(grays)
    detail = alignment.detail(small, finest=1.5, coarsest=8).numpy()
    spectra = perceptual_hash.spectra(detail)
    frame = perceptual_hash.signatures(spectra)
    zoomed = perceptual_hash.signatures(perceptual_hash.spectra(detail[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]))
    lesion, *rotated_lesions = (
        perceptual_hash.signatures(perceptual_hash.spectra(perceptual_hash.center_on_lesion(small, degrees=degrees)))
        for degrees in (0, *_LESION_ANGLES)
    )
    plain: set[tuple[int, int]] = set()
    for first, second in (
        (frame, frame),
        (frame, zoomed),
        (zoomed, frame),
        (lesion, lesion),
        *((lesion, rotated) for rotated in rotated_lesions),
    ):
        plain.update(_most_similar(first, second, -1.0, in_a, in_b))
    candidates = [(*pair, 0) for pair in sorted(plain)]
    for number, symmetry in list(enumerate(perceptual_hash.SYMMETRIES))[1:]:
        transformed = perceptual_hash.signatures(spectra, symmetry)
        pairs = _most_similar(frame, transformed, _MIN_TRANSFORMED_SIMILARITY, in_a, in_b)
        candidates += [(*pair, number) for pair in pairs]
    return np.array(candidates, int).reshape(-1, 3)


def _most_similar(
    first: np.ndarray, second: np.ndarray, least: float, in_a: np.ndarray, in_b: np.ndarray
) -> list[tuple[int, int]]:
    """The pairs (row of a, row of b) with the most similar signatures, `first` of a and `second` of b.

    These are the best of all pairs; scikit-learn's neighbors are the best of each row.
    """
    rows, columns = np.flatnonzero(in_a), np.flatnonzero(in_b)
    num = max(_MIN_PROPOSALS, _PROPOSALS_PER_IMAGE * len(first))
    found = [np.empty((0, 3))]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        similarity = first[block] @ second[columns].T
        # a pair whose images are in both sets is compared once, an image with itself never
        similarity[(block[:, None] >= columns) & in_b[block][:, None] & in_a[columns]] = -2
        flat = similarity.ravel()
        top = np.argpartition(flat, -num)[-num:] if num < len(flat) else np.arange(len(flat))
        top = top[flat[top] >= least]
        found.append(np.stack([flat[top], block[top // len(columns)], columns[top % len(columns)]], axis=1))
    pairs = np.concatenate(found)
    best = np.argsort(-pairs[:, 0], kind="stable")[:num]
    return [(int(one), int(other)) for _, one, other in pairs[best]]


def _confirm(grays: np.ndarray, candidates: np.ndarray, threshold: float, bar: tqdm) -> dict[tuple[int, int], float]:
    """Align candidates at a quarter, a half and all of the resolution, and score those that pass."""
    half = halve(grays)
    maps, scores = torch.empty(0), torch.empty(0)
    # Gauss-Newton steps; finest and coarsest structure in pixels; least score.
    passes = (
        (halve(half), 0, (0.5, 2.5), _MIN_COARSE),
        (half, 5, (0.7, 5.0), _MIN_MIDDLE),
        (grays, 1, (0.7, 3.0), min(_MIN_FIRST_FINE, threshold)),
        (grays, 6, (0.7, 3.0), threshold),
    )
    for number, (images, steps, (finest, coarsest), least) in enumerate(passes, start=1):
        if not len(candidates):
            break
        bar.set_description(f"near-duplicates, pass {number} of {len(passes)}", refresh=False)
        bar.reset(total=len(candidates))
        used, places = np.unique(candidates[:, :2], return_inverse=True)
        details = alignment.detail(images[used], finest=finest, coarsest=coarsest)
        first, second = (details[column] for column in places.reshape(-1, 2).T)
        second = _transform(second, candidates[:, 2])
        if steps:
            maps, scores = alignment.refine(first, second, maps, steps=steps, on_pairs=bar.update)
        else:
            maps, scores = alignment.search(first, second, on_pairs=bar.update)
        kept = (scores >= least).numpy()
        candidates, maps, scores = candidates[kept], maps[kept], scores[kept]
    confirmed: dict[tuple[int, int], float] = {}
    for (one, other, _), score in zip(candidates.tolist(), scores.clamp(max=1).tolist(), strict=True):
        confirmed[one, other] = max(score, confirmed.get((one, other), 0.0))
    return confirmed


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch in one thread: with tensors this small, more threads are up to ten times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _transform(details: torch.Tensor, symmetries: np.ndarray) -> torch.Tensor:
    """Apply to each image (p, s, s) its symmetry."""
    for number in np.unique(symmetries[symmetries > 0]):
        chosen = symmetries == number
        transformed = perceptual_hash.apply_symmetry(details[chosen].numpy(), perceptual_hash.SYMMETRIES[number])
        details[chosen] = torch.from_numpy(transformed.copy())
    return details
