"""Perceptual signatures: short vectors that change little when an image is recolored, reframed or compressed.

A signature has the low frequencies of a small copy, each divided by its mean magnitude over the set. So features of all
images, such as a dark blob in the middle, have little weight. The product of two signatures is their similarity.
Reflections and rotations by 90 degrees only exchange frequencies and signs.

Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", the DCT hash before rounding.
"""

import numpy as np
from scipy import fft, ndimage

_FREQUENCIES = 8
# The eight symmetries of a square: transposed, rows mirrored, columns mirrored. The first is the identity.
SYMMETRIES = tuple((t, v, h) for t in (False, True) for v in (False, True) for h in (False, True))


def apply_symmetry(images: np.ndarray, symmetry: tuple[bool, bool, bool]) -> np.ndarray:
    """Transform square images, (..., s, s): first transpose, then mirror rows, then columns."""
    transposed, rows, columns = symmetry
    if transposed:
        images = np.swapaxes(images, -1, -2)
    if rows:
        images = images[..., ::-1, :]
    return images[..., ::-1] if columns else images


def spectra(grays: np.ndarray) -> np.ndarray:
    """Low DCT frequencies of images (n, s, s) -> (n, f, f); the mean is set to 0."""
    found = fft.dctn(grays, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES].copy()
    found[:, 0, 0] = 0
    return found


def signatures(found: np.ndarray, symmetry: tuple[bool, bool, bool] = SYMMETRIES[0]) -> np.ndarray:
    """Unit vectors (n, f * f) of a set of images under a symmetry, from their `spectra` (n, f, f)."""
    transposed, rows, columns = symmetry
    typical = np.abs(found).mean(0) + 1e-6
    odd = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)
    transformed = np.swapaxes(found, 1, 2) if transposed else found
    transformed = transformed * (odd[:, None] if rows else 1) * (odd if columns else 1) / typical
    flat = transformed.reshape(len(found), -1).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def center_on_lesion(grays: np.ndarray, *, degrees: float = 0.0) -> np.ndarray:
    """Shift and scale each image (n, s, s) so that its dark region is in the middle and has a fixed size.

    Signatures of the result find the same lesion in another framing; `degrees` rotates the image about that center.
    """
    side = grays.shape[1]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[cos, -sin], [sin, cos]])
    axis = np.arange(side, dtype=np.float32)
    centered = np.empty_like(grays)
    # dark corners and rulers get small weights
    focus = np.exp(-(((axis - side / 2) / (0.45 * side)) ** 2))
    for index, gray in enumerate(grays):
        smooth = ndimage.gaussian_filter(gray, side / 32)
        weight = np.maximum(np.percentile(smooth, 70) - smooth, 0) * np.outer(focus, focus) + 1e-6
        weight /= weight.sum()
        rows, columns = weight.sum(1), weight.sum(0)
        middle = np.array([rows @ axis, columns @ axis])
        spread = np.sqrt(np.sqrt((rows @ (axis - middle[0]) ** 2) * (columns @ (axis - middle[1]) ** 2)))
        zoom = np.clip(spread / (0.16 * side), 0.5, 1.6)
        back = zoom * rotation
        offset = middle - back @ np.full(2, side / 2)
        centered[index] = ndimage.affine_transform(gray, back, offset, order=1, mode="nearest")
    return centered
