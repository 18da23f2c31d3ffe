"""Perceptual signatures: short vectors that stay close when a picture is recoloured, reframed or compressed.

A signature holds the low frequencies of a small copy, each divided by its mean size over the set: what all
pictures share (a dark blob in the middle) then counts little. It is the DCT hash of Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", before rounding to bits; the product of
two is their likeness. Mirror images and quarter turns only swap frequencies and signs.
"""

import numpy as np
from scipy import fft, ndimage

_FREQUENCIES = 8
# The eight symmetries of a square: transposed, rows mirrored, columns mirrored. The first leaves all as it is.
SYMMETRIES = tuple((t, v, h) for t in (False, True) for v in (False, True) for h in (False, True))


def apply_symmetry(images: np.ndarray, symmetry: tuple[bool, bool, bool]) -> np.ndarray:
    """Mirror and turn square pictures, (..., s, s): first transpose, then mirror rows, then columns."""
    transposed, rows, columns = symmetry
    if transposed:
        images = np.swapaxes(images, -1, -2)
    if rows:
        images = images[..., ::-1, :]
    return images[..., ::-1] if columns else images


def spectra(greys: np.ndarray) -> np.ndarray:
    """Low DCT frequencies of pictures (n, s, s) -> (n, f, f); the mean is 0."""
    found = fft.dctn(greys, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES].copy()
    found[:, 0, 0] = 0
    return found


def signatures(found: np.ndarray, symmetry: tuple[bool, bool, bool] = SYMMETRIES[0]) -> np.ndarray:
    """Unit vectors (n, f * f) of a set of pictures, seen in a symmetry, from their `spectra` (n, f, f)."""
    transposed, rows, columns = symmetry
    typical = np.abs(found).mean(0) + 1e-6
    odd = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)
    turned = np.swapaxes(found, 1, 2) if transposed else found
    turned = turned * (odd[:, None] if rows else 1) * (odd if columns else 1) / typical
    flat = turned.reshape(len(found), -1).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def centre_on_lesion(greys: np.ndarray, *, degrees: float = 0.0) -> np.ndarray:
    """Shift and scale each picture (n, s, s) so that what is dark has its centre in the middle and one size.

    Its signature finds the same lesion in another framing; `degrees` turns it besides, about that centre.
    """
    side = greys.shape[1]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    axis = np.arange(side, dtype=np.float32)
    centred = np.empty_like(greys)
    # Dark corners and rulers weigh little.
    focus = np.exp(-(((axis - side / 2) / (0.45 * side)) ** 2))
    for index, grey in enumerate(greys):
        smooth = ndimage.gaussian_filter(grey, side / 32)
        weight = np.maximum(np.percentile(smooth, 70) - smooth, 0) * np.outer(focus, focus) + 1e-6
        weight /= weight.sum()
        rows, columns = weight.sum(1), weight.sum(0)
        middle = np.array([rows @ axis, columns @ axis])
        spread = np.sqrt(np.sqrt((rows @ (axis - middle[0]) ** 2) * (columns @ (axis - middle[1]) ** 2)))
        zoom = np.clip(spread / (0.16 * side), 0.5, 1.6)
        back = zoom * turn
        offset = middle - back @ np.full(2, side / 2)
        centred[index] = ndimage.affine_transform(grey, back, offset, order=1, mode="nearest")
    return centred
