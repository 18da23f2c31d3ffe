"""Skin tone of an image: the individual typology angle (ITA) of its skin.

The images are not calibrated: light, camera and white balance change the angle by many degrees. It orders images
roughly, and is not a measurement of a person.
Shape letters: h w the image in pixels.
"""

import math

import numpy as np
from scipy import ndimage

# Name of each class, and its lower limit in degrees.
_TONES = (("very light", 55.0), ("light", 41.0), ("intermediate", 28.0), ("tan", 10.0), ("brown or dark", -math.inf))
# Pixels darker than this (L*) and connected to the frame are the vignette of a dermatoscope.
_VIGNETTE_LIGHTNESS = 25.0
# Margin around vignette and lesion, where both fade into the skin, as a fraction of the longer side.
_MARGIN = 0.04
# Least fraction of the image that has to be skin.
_LEAST_SKIN = 0.02

_LINEAR = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], "f4")
# Rows of the sRGB matrix for Y and Z, divided by the white point D65.
_TO_Y = np.array([0.2126729, 0.7151522, 0.0721750], np.float32)
_TO_Z = np.array([0.0193339, 0.1191920, 0.9503041], np.float32) / np.float32(1.08883)


def typology_angle(image: np.ndarray, lesion: np.ndarray) -> float | None:
    """Compute arctan((L* - 50) / b*) of the median color of the skin, in degrees; lighter skin has a larger angle.

    Args:
        image: uint8 (h, w, 3), sRGB.
        lesion: bool (h, w).
    Returns:
        The angle; None if lesion and vignette leave hardly any skin, or if the light makes it bluish (b* <= 0).
    Source: Chardon et al. 1991, doi 10.1111/j.1467-2494.1991.tb00561.x.
    """
    lightness, yellowness = _lightness_and_yellowness(image)
    reach = max(1, round(_MARGIN * max(lesion.shape)))
    skin = ~ndimage.maximum_filter(lesion | _vignette(lightness), size=2 * reach + 1)
    if skin.mean() < _LEAST_SKIN:
        return None
    yellow = float(np.median(yellowness[skin]))
    return math.degrees(math.atan((float(np.median(lightness[skin])) - 50) / yellow)) if yellow > 0 else None


def tone_of(angle: float) -> str:
    """Return the label of an angle in degrees, one of `tone_labels()`.

    Source: Kinyanjui et al. 2019, arXiv 1910.13268, with neighboring half classes merged.
    """
    place = next(place for place, (_, least) in enumerate(_TONES) if angle > least)
    return tone_labels()[place]


def tone_labels() -> list[str]:
    """Labels of the five classes, from light to dark, with their limits."""
    (lightest, highest), *middle, (darkest, _) = _TONES
    upper = [least for _, least in _TONES]
    labels = [f"{name} ({least:.0f} to {above:.0f}°)" for (name, least), above in zip(middle, upper, strict=False)]
    return [f"{lightest} (above {highest:.0f}°)", *labels, f"{darkest} (up to {upper[-2]:.0f}°)"]


def _vignette(lightness: np.ndarray) -> np.ndarray:
    regions, _ = ndimage.label(lightness < _VIGNETTE_LIGHTNESS)
    frame = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.isin(regions, np.setdiff1d(frame, 0))


def _lightness_and_yellowness(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert sRGB to L* and b* of CIELAB, float32 (h, w) each."""
    linear = _LINEAR[image]
    y, z = _compressed(linear @ _TO_Y), _compressed(linear @ _TO_Z)
    return 116 * y - 16, 200 * (y - z)


def _compressed(ratio: np.ndarray) -> np.ndarray:
    return np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
