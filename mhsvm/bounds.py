"""The values of each numeric setting that a training can use."""

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

# A training computes in float32: larger numbers, and products with them, become infinite there.
LARGEST = 1e30

# As intervals, with brackets as in mathematics: [ includes the end, ( does not. An infinite end is LARGEST.
BOUNDS = {
    # torch takes seeds of 64 bits; further processes add their rank
    "run.seed": "[0, 9223372036854775807]",
    "data.size": "[0, 65535]",
    # 255 marks pixels that are not counted
    "model.num_classes": "[1, 255]",
    "model.in_channels": "[1, 1024]",
    "model.ultralight_vm_unet.channels": "[1, 65536]",
    "model.ultralight_vm_unet.branches": "[1, 1024]",
    "model.ultralight_vm_unet.d_state": "[1, 1024]",
    "model.ultralight_vm_unet.d_conv": "[1, 64]",
    "model.ultralight_vm_unet.expand": "[1, 64]",
    "model.mhs_vm.gate_threshold": "(-inf, inf)",
    "model.mhs_vm.gate_power": "[1, inf)",
    "model.mhs_vm.head_divisor": "[0, 65536]",
    "model.mhs_vm.branches": "[1, 1024]",
    "model.mhs_vm.dims": "[1, 65536]",
    "model.mhs_vm.depths": "[1, 256]",
    "model.mhs_vm.decoder_depths": "[1, 256]",
    "model.mhs_vm.d_state": "[1, 1024]",
    "model.mhs_vm.drop_path_rate": "[0, 1)",
    "model.vm_unet.branches": "[1, 1024]",
    "model.vm_unet.dims": "[1, 65536]",
    "model.vm_unet.depths": "[1, 256]",
    "model.vm_unet.decoder_depths": "[1, 256]",
    "model.vm_unet.d_state": "[1, 1024]",
    "model.vm_unet.drop_path_rate": "[0, 1)",
    "model.malunet.channels": "[1, 65536]",
    "mixer.mhs.gate_threshold": "(-inf, inf)",
    "mixer.mhs.gate_power": "[1, inf)",
    "mixer.mamba2.head_width": "[1, 65536]",
    "mixer.conv.kernel_size": "[1, 63]",
    "loss.bce_dice.bce_weight": "[0, inf)",
    "loss.bce_dice.dice_weight": "[0, inf)",
    "loss.bce_dice.smooth": "[0, inf)",
    "loss.ce_dice.ce_weight": "[0, inf)",
    "loss.ce_dice.dice_weight": "[0, inf)",
    "loss.ce_dice.smooth": "[0, inf)",
    "optimizer.Adadelta.rho": "[0, 1)",
    "optimizer.Adagrad.lr_decay": "[0, inf)",
    "optimizer.ASGD.lambd": "[0, inf)",
    "optimizer.ASGD.alpha": "[0, 1]",
    "optimizer.ASGD.t0": "[0, inf)",
    "optimizer.RMSprop.momentum": "[0, 1)",
    "optimizer.RMSprop.alpha": "[0, 1)",
    "optimizer.Rprop.etas": "(0, inf)",
    "optimizer.Rprop.step_sizes": "(0, inf)",
    "optimizer.SGD.momentum": "[0, 1)",
    "optimizer.SGD.dampening": "[0, 1]",
    # of every optimizer; with an eps of 0, a gradient of 0 would be divided by 0
    "optimizer.*.lr": "(0, inf)",
    "optimizer.*.betas": "[0, 1)",
    "optimizer.*.eps": "(0, inf)",
    "optimizer.*.weight_decay": "[0, 1000000]",
    "schedule.StepLR.step_size": "[1, 1000000]",
    "schedule.MultiStepLR.milestones": "[1, 1000000]",
    "schedule.CosineAnnealingLR.T_max": "[1, 1000000]",
    "schedule.ReduceLROnPlateau.factor": "(0, 1)",
    "schedule.ReduceLROnPlateau.patience": "[0, 1000000]",
    "schedule.ReduceLROnPlateau.threshold": "[0, inf)",
    "schedule.ReduceLROnPlateau.cooldown": "[0, 1000000]",
    "schedule.ReduceLROnPlateau.min_lr": "[0, inf)",
    "schedule.ReduceLROnPlateau.eps": "[0, inf)",
    "schedule.CosineAnnealingWarmRestarts.T_0": "[1, 1000000]",
    "schedule.CosineAnnealingWarmRestarts.T_mult": "[1, 1000]",
    "schedule.WarmupMultiStepLR.warmup_epochs": "[0, 1000000]",
    "schedule.WarmupMultiStepLR.milestones": "[1, 1000000]",
    "schedule.WarmupCosineLR.warmup_epochs": "[0, 1000000]",
    "schedule.WarmupCosineLR.T_max": "[1, 1000000]",
    "schedule.*.gamma": "(0, 1000]",
    "schedule.*.eta_min": "[0, inf)",
    "train.epochs": "[1, 1000000]",
    "train.batch_size": "[1, 65536]",
    "train.accumulation": "[1, 65536]",
    "train.clip_norm": "[0, inf)",
    "train.ema_decay": "[0, 1)",
    "evaluation.batch_size": "[1, 65536]",
    "evaluation.threshold": "(0, 1)",
}
# Lists that may be empty, and those of a fixed length.
MAY_BE_EMPTY = ("run.plugins", "schedule.MultiStepLR.milestones", "schedule.WarmupMultiStepLR.milestones")
LENGTHS = {
    "model.ultralight_vm_unet.channels": 6,
    "model.malunet.channels": 6,
    "optimizer.*.betas": 2,
    "optimizer.Rprop.etas": 2,
    "optimizer.Rprop.step_sizes": 2,
}

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Interval:
    """Finite numbers from `low` to `high`, without an end that is open."""

    low: float
    high: float
    low_is_open: bool
    high_is_open: bool

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Parse an interval such as "[0, 1)"."""
        match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", text)
        assert match, text
        low, high = ({"-inf": -LARGEST, "inf": LARGEST}.get(end) or int(end) for end in match.group(2, 3))
        return cls(low, high, match[1] == "(" and low != -LARGEST, match[4] == ")" and high != LARGEST)

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_is_open else value >= self.low
        below = value < self.high if self.high_is_open else value <= self.high
        return above and below

    def rule(self, value: float) -> str:
        """The rule that a number breaks, which follows "is"."""
        if not math.isfinite(value):
            return "a finite number"
        if value <= self.low:
            return f"{'more than' if self.low_is_open else 'at least'} {self.low}"
        return f"{'less than' if self.high_is_open else 'at most'} {self.high}"


def check_value(key: str, value: object) -> None:
    """Check a converted value of a setting; those that the tables do not name are only finite and not empty.

    Args:
        key: Dotted key, spelled as in the defaults.
        value: A value of the type of the key, or a tuple of such.
    Raises:
        ValueError: No training can use it.
    """
    if isinstance(value, tuple):
        length = _find(LENGTHS, key)
        if length is not None and len(value) != length:
            raise ValueError(f"{key} has {length} values, not {len(value)}: {_shown(value)}")
    interval = bound_of(key) or Interval.parse("(-inf, inf)")
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, (int, float)) and not isinstance(item, bool) and item not in interval:
            each = "each of " if isinstance(value, tuple) else ""
            raise ValueError(f"{each}{key} is {interval.rule(item)}, not {item}")


@cache
def bound_of(key: str) -> Interval | None:
    """The interval of a setting; None if the table has none."""
    text = _find(BOUNDS, key)
    return None if text is None else Interval.parse(text)


def _find(table: dict[str, Entry], key: str) -> Entry | None:
    """The entry of a key, or of its group with a star for the name of the class."""
    group, _, rest = key.partition(".")
    return table.get(key, table.get(f"{group}.*.{rest.partition('.')[2]}"))


def _shown(value: tuple) -> str:
    return ",".join(map(str, value)) or "none"
