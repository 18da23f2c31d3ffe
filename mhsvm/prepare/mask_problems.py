"""Problems of masks that cannot be decoded, the same wherever masks are read."""

from mhsvm.prepare.headers import UNREADABLE
from mhsvm.prepare.mask_levels import MaskLevelsError
from mhsvm.prepare.problems import Problems, Rule

GRAY_LEVELS = Rule(
    "mask with other levels than black and white",
    "threshold it at half and save it as PNG (a JPEG always has gray levels); for class indices give `num_classes`. "
    "Or prepare the set with `threshold` 0.5: a pixel is then lesion from half of full scale on",
)
CLASSES = Rule("class mask with a level that is no class", "save indices 0..K-1 and 255 = ignore; K is `num_classes`")


def note_mask_error(
    error: ValueError, name: str, problems: Problems, *, num_classes: int, gray_levels: Rule = GRAY_LEVELS
) -> None:
    """Add the problem of a mask that `decode_mask` refuses.

    Args:
        error: Its error.
        name: Name of the file.
        problems: Receives the problem.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        gray_levels: The broken rule of a lesion mask with gray levels.
    """
    rule = UNREADABLE
    if isinstance(error, MaskLevelsError):
        rule = error.rule or (gray_levels if num_classes == 1 else CLASSES)
    problems.add(rule, f"{name}: {error}")
