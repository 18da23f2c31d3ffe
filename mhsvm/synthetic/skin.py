"""Skin in a dermatoscope: tone, blood and pigment mottling, fine relief, light and white balance."""

import numpy as np

from mhsvm.synthetic.plane import Plane

# Absorption of red, green and blue by each chromophore, relative to its strongest channel.
# Melanin absorbs more at shorter wavelengths, and hemoglobin little in red (Jacques 2013,
# doi 10.1088/0031-9155/58/11/R37); fitted by eye to public images.
MELANIN = np.array([0.48, 0.72, 1.0], np.float32)
HEMOGLOBIN = np.array([0.15, 1.0, 0.8], np.float32)


def generate_skin(plane: Plane, rng: np.random.Generator) -> np.ndarray:
    """Generate skin without a lesion, float32 (h, w, 3), 1 = white."""
    blood = rng.uniform(0.0, 0.03) * (plane.noise(rng, 5) + plane.noise(rng, 11) + plane.noise(rng, 24))
    pigment = rng.uniform(0.0, 0.04) * plane.noise(rng, 4) + rng.uniform(0.0, 0.04) * plane.noise(rng, 60)
    if rng.random() < 0.25:
        freckles = plane.dots(plane.points(rng, int(rng.integers(3, 40))), rng.uniform(0.004, 0.012))
        pigment += rng.uniform(0.1, 0.3) * freckles
    # Furrows: thin valleys of a noise field.
    relief = rng.uniform(0.0, 0.1) * np.exp(-6 * plane.noise(rng, rng.uniform(35, 60)) ** 2)
    return skin_tone(rng) * absorb(melanin=pigment + relief, hemoglobin=blood)


def skin_tone(rng: np.random.Generator) -> np.ndarray:
    """Sample a skin color, (3,) in sRGB.

    The individual typology angle atan((L - 50) / b) runs from very light (above 55 degrees) to dark (below -30);
    most are light, as in the public sets. Source: Chardon et al. 1991, doi 10.1111/j.1467-2494.1991.tb00561.x.
    """
    angle = rng.uniform(-30, 30) if rng.random() < 0.2 else rng.uniform(30, 62)
    yellow = rng.uniform(9, 17)
    lightness = 50 + yellow * np.tan(np.radians(angle))
    return lab_to_srgb(lightness, rng.uniform(7, 15), yellow)


def absorb(*, melanin: np.ndarray, hemoglobin: np.ndarray, melanin_color: np.ndarray = MELANIN) -> np.ndarray:
    """Fraction of light that layers of these densities, (h, w), transmit: (h, w, 3)."""
    return np.exp(-melanin[..., None] * melanin_color - hemoglobin[..., None] * HEMOGLOBIN)


def generate_light(plane: Plane, rng: np.random.Generator) -> np.ndarray:
    """Sample exposure, white balance and fall-off, as a factor for each pixel and channel (h, w, 3)."""
    balance = np.exp(rng.normal(0, 0.035, 3))
    if rng.random() < 0.12:
        # Saturated cameras: salmon or bluish skin.
        balance *= np.array([1.1, 0.76, 0.7]) if rng.random() < 0.7 else np.array([0.85, 0.97, 1.12])
    center_x, center_y = rng.normal(0, 0.12, 2)
    distance = (plane.x - center_x) ** 2 + (plane.y - center_y) ** 2
    fall_off = 1 - rng.uniform(0, 0.6) * distance
    return (rng.uniform(0.85, 1.6) * balance * fall_off[..., None]).astype(np.float32)


def lab_to_srgb(lightness: float, red: float, yellow: float) -> np.ndarray:
    """Convert CIE L*a*b* (D65) to sRGB in [0, 1], (3,). Source: IEC 61966-2-1."""
    fy = (lightness + 16) / 116
    f = np.array([fy + red / 500, fy, fy - yellow / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9505, 1.0, 1.089]
    matrix = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    linear = np.clip(matrix @ xyz, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
