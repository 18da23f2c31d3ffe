"""A training that cannot start says all that is wrong, before anything is written."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mhsvm.assemble import load_predictor, plan_run, read_config
from mhsvm.assemble.checks import check_training
from mhsvm.models.registry import MODELS, register_model
from mhsvm.store import Sample, write_set

SMALL = ("data.set", "lesions", "data.split", "official", "run.device", "cpu")


@pytest.fixture
def make_sized_set(workplace):
    """Write data/lesions.h5 with images that need not be square."""

    def make(height: int, width: int) -> None:
        image, mask = np.full((height, width, 3), 90, np.uint8), np.full((height, width), 255, np.uint8)
        samples = [
            Sample(f"{part}{i}", image, mask, (height, width), part) for part in ("train", "val") for i in (0, 1)
        ]
        path = workplace / "data" / "lesions.h5"
        write_set(path, samples, name="lesions", size=(height, width), num_classes=1, attributes={}, total=4)

    return make


def message_of(*settings, **options):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        check_training(read_config(None, [*SMALL, *settings]), **options)
    return str(error.value)


def test_a_training_that_can_start_has_its_split_and_checksum(make_set):
    make_set()
    config, split, checksum = check_training(read_config(None, SMALL))
    assert split.name == "official"
    assert config.data.size == 32
    assert len(split.ids("train")) == 9
    assert len(checksum) == 64


def test_everything_that_is_wrong_is_said_at_once(make_set, workplace):
    make_set(side=48)
    before = sorted(workplace.rglob("*"))
    message = message_of(
        *("model.num_classes", "1", "loss.name", "ce_dice", "model.backend", "tritn", "run.device", "cuda:9"),
        *("train.precision", "float23", "train.step", "graf", "data.placement", "disk", "optimizer.name", "Adma"),
        *("schedule.name", "StepRL", "data.augmentation", "flips", "data.split", "ratio-60-40"),
        *("model.name", "mhs_vm", "model.mhs_vm.gate", "reul", "train.batch_size", "2"),
        num_processes=4,
    )
    assert message.startswith("12 reasons why this training cannot start:\n")
    for part in (
        "backend: unknown name 'tritn'",
        "device 'cuda:9' cannot be used here",
        "train.precision is one of float32, bfloat16, not 'float23'. Did you mean 'float32'?",
        "train.step is one of auto, eager, graph, compile, not 'graf'. Did you mean 'graph'?",
        "data.placement is one of auto, device, stream, not 'disk'",
        "train.batch_size is that of all 4 processes together",
        "unknown augmentation 'flips'",
        "loss 'ce_dice' does not fit model.num_classes 1",
        "unknown optimizer 'Adma'",
        "unknown schedule 'StepRL'; known: ",
        "reul",
        "ratio-60-40",
    ):
        assert part in message
    assert sorted(workplace.rglob("*")) == before


def test_a_missing_set_and_weights_that_do_not_fit_are_said_together(workplace, make_set):
    make_set("lesion")
    message = message_of("model.weights", "nowhere.pt", "schedule.name", "WarmupCosine")
    assert message.startswith("3 reasons why this training cannot start:\n")
    assert "nowhere.pt" in message
    assert "there is no data set 'lesions'" in message
    assert "Did you mean 'lesion'?" in message


@pytest.mark.parametrize(("height", "width", "fitting"), [(48, 80, "64 x 64"), (32, 40, "32 x 32"), (8, 32, "32 x 32")])
def test_a_size_that_the_network_cannot_take_is_found_before_a_run_has_a_folder(
    height, width, fitting, workplace, make_sized_set
):
    make_sized_set(height, width)
    message = message_of()
    assert message == (
        "ultralight_vm_unet takes images whose height and width are multiples of 32, and those of data/lesions.h5 are "
        f"{height} x {width}: prepare it at another size (data.size for a folder), such as {fitting}"
    )


def test_a_network_has_the_channels_of_the_images(make_set):
    make_set()
    assert message_of("model.in_channels", "1").endswith("model.in_channels is 1: set model.in_channels 3")


def test_a_loss_has_a_weight(make_set):
    make_set()
    message = message_of("loss.bce_dice.bce_weight", "0", "loss.bce_dice.dice_weight", "0")
    assert message.startswith("loss.bce_dice.bce_weight and loss.bce_dice.dice_weight are 0, so that nothing is")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.MaxPool2d(64), nn.Conv2d(3, 1, 1)), "toy cannot compute an image of 3 x 32 x 32: "),
        (nn.Conv2d(3, 2, 1), r"toy returns logits \(1, 1, 32, 32\) for an image \(1, 3, 32, 32\); received \(1, 2"),
    ],
)
def test_a_network_without_a_stride_computes_an_image(network, message, make_set):
    make_set()
    register_model("toy")(lambda num_classes=1, in_channels=3: network)
    try:
        with pytest.raises(ValueError, match=f"^{message}"):
            check_training(read_config(None, [*SMALL, "model.name", "toy"]))
        assert network.training
    finally:
        MODELS.remove("toy")


def test_a_folder_is_not_prepared_for_a_training_that_cannot_start(workplace, lay_out, picture, lesion):
    files = {f"{kind}/{i}.png": make(i) for i in range(4) for kind, make in (("images", picture), ("masks", lesion))}
    folder = lay_out(files, name="data/own")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="^unknown schedule"):
        plan_run(read_config(None, ["data.set", "own", "run.device", "cpu", "schedule.name", "Step"]), None)
    assert sorted(folder.rglob("*")) == before


def test_unknown_weights_are_listed():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint nope, .*known: isic2017-wu-"):
        load_predictor("nope", device="cpu")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'isic2017-wu-sorted'\?"):
        load_predictor(Path("isic2017-wu-sort"), device="cpu")
