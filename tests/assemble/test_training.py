import numpy as np
import pytest

from mhsvm.assemble import build_job
from mhsvm.config import load_config
from mhsvm.data.split_file import Split
from mhsvm.runtime.distributed import World
from mhsvm.store import PreparedSet, Sample, write_set


def test_a_batch_has_an_image_for_each_process():
    with pytest.raises(ValueError, match="train.batch_size is that of all 4 processes together, and 3 is less"):
        build_job(
            load_config(None, ("train.batch_size", "3")),
            None,
            Split("none", {"a": "val+test", "b": "train"}),
            World(size=4),
        )


@pytest.mark.parametrize(
    ("num_classes", "train_level", "val_level", "expected"),
    [
        (1, 255, 255, ()),
        (
            1,
            127,
            0,
            ("training part shows a lesion: it", "validation part shows a lesion: val_miou"),
        ),
        (
            3,
            2,
            1,
            ("training part holds class 1: it", "validation part holds class 2: val_miou"),
        ),
        (4, 1, 255, ("training part holds classes 2, 3: it", "validation part holds classes 1, 2, 3: val_miou")),
    ],
)
def test_a_part_without_a_class_is_a_warning(tmp_path, num_classes, train_level, val_level, expected):
    path, masks = tmp_path / "own.h5", np.zeros((2, 32, 32), np.uint8)
    masks[0, :4], masks[1, :4] = train_level, val_level
    samples = [
        Sample(id_, np.zeros((32, 32, 3), np.uint8), mask, (32, 32)) for id_, mask in zip("ab", masks, strict=True)
    ]
    write_set(path, samples, name="own", size=(32, 32), num_classes=num_classes, attributes={}, total=2)
    loss = "bce_dice" if num_classes == 1 else "ce_dice"
    config = load_config(None, ("model.num_classes", str(num_classes), "loss.name", loss, "run.device", "cpu"))
    with PreparedSet.open(path) as prepared:
        job = build_job(config, prepared, Split("own", {"a": "train", "b": "val"}))
    assert len(job.warnings) == len(expected)
    for warning, part in zip(job.warnings, expected, strict=True):
        assert warning.startswith(f"no mask of the {part}")
