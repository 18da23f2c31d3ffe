"""The facts that every exported file has beside the weights."""

import json
from dataclasses import asdict, dataclass, fields

from mhsvm.version import __version__

RESIZE_RULE = (
    "whole frame to the size of the network, antialiased bilinear as Pillow's: first the width, then the height"
)
INTENDED_USE = "For research only; not a medical device."
_SCHEMA = 1


@dataclass(frozen=True)
class Facts:
    """Facts about an exported model, without any path.

    Attributes:
        name: Name of the weights, or of the run.
        sha256: Checksum of the checkpoint.
        model: Name of the network.
        num_classes: 1 for lesion, or k.
        size: (h, w) of the network's images in pixels.
        normalization: Name of the normalization.
        threshold: Probability at and above which a pixel is lesion.
        license: License of the weights' data; "" if unknown.
    """

    name: str
    sha256: str
    model: str
    num_classes: int
    size: tuple[int, int]
    normalization: str
    threshold: float
    license: str = ""

    def lines(self) -> dict[str, str]:
        """The facts as texts by name, for people and for metadata."""
        h, w = self.size
        rule = f"lesion where the probability is at least {self.threshold:g}"
        return {
            "weights": "".join(letter if letter.isprintable() else " " for letter in self.name),
            "sha256 of the checkpoint": self.sha256,
            "network": f"{self.model}, {self.num_classes} class{'es' if self.num_classes > 1 else ''}",
            "image": f"{h} x {w} pixels, RGB, 8 bits; {RESIZE_RULE}",
            "normalization": self.normalization,
            "decision": rule if self.num_classes == 1 else "the class of the highest probability",
            "license of the data": self.license or "not recorded",
            "written by": f"mhsvm {__version__}",
            "use": INTENDED_USE,
        }

    def to_json(self) -> str:
        """The facts as JSON, for `from_json`."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str) -> "Facts":
        """Facts from a file.

        Args:
            text: From `to_json`.
            name: Name of the file, for messages.
        Raises:
            ValueError: They are not complete, or a later version has written them.
        """
        try:
            found = json.loads(text)
            is_later = found["schema"] > _SCHEMA
            values = {each.name: found[each.name] for each in fields(cls)}
            h, w = values["size"]
            facts = cls(**values | {"size": (int(h), int(w)), "threshold": float(values["threshold"])})
            is_sound = facts.num_classes >= 1 and 0 <= facts.threshold <= 1
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"the facts of mhsvm in {name} are damaged: {error!r}") from error
        if is_later:
            raise ValueError(f"a later version of mhsvm has written {name}: update mhsvm")
        if not is_sound:
            raise ValueError(f"the facts of mhsvm in {name} are damaged: {text}")
        return facts
