import pytest
import torch
from torch import nn

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.split_file import Split
from mhsvm.engine.ema import ModelAverage
from mhsvm.engine.job import Job
from mhsvm.engine.optim import create_optimizer, create_schedule
from mhsvm.engine.run_folder import RunFolder
from mhsvm.engine.step import TrainStep
from mhsvm.losses import create_loss


def random_set(num_images: int, seed: int, side: int = 12) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num_images, side, side, 3), dtype=torch.uint8, generator=generator)
    # the lesion is where the image is bright, so that there is something to learn
    masks = (images.float().mean(dim=-1) > 128).to(torch.uint8) * 255
    return Dataset(ids=tuple(f"image{i:02d}" for i in range(num_images)), images=images, masks=masks)


@pytest.fixture
def make_job():
    """A function that builds a small training; every call with the same arguments builds the same."""

    def make(
        *,
        optimizer: str = "AdamW",
        optimizer_arguments: dict | None = None,
        schedule: str = "CosineAnnealingLR",
        schedule_arguments: dict | None = None,
        epochs: int = 3,
        batch_size: int = 4,
        accumulation: int = 1,
        clip_norm: float = 0.0,
        precision: torch.dtype = torch.float32,
        dropout: float = 0.5,
        ema_decay: float = 0.0,
        num_images: int = 10,
    ) -> Job:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Dropout2d(dropout), nn.Conv2d(4, 1, 1))
        built = create_optimizer(optimizer, model, **(optimizer_arguments or {"lr": 1e-2}))
        loss, augment = create_loss("bce_dice"), Augment(augmentation="ultralight")
        average = ModelAverage(model, decay=ema_decay) if ema_decay else None
        return Job(
            model=model,
            optimizer=built,
            schedule=create_schedule(schedule, built, **(schedule_arguments or {"T_max": 3})),
            loss=loss,
            step=TrainStep(
                model, built, loss, prepare=augment, clip_norm=clip_norm, precision=precision, average=average
            ),
            infer=average.model if average else model,
            train_set=random_set(num_images, seed=1),
            val_set=random_set(5, seed=2),
            augment=augment,
            val_augment=Augment(),
            generator=torch.Generator().manual_seed(3),
            device=torch.device("cpu"),
            description={"config": {}, "data": {}, "version": {}},
            epochs=epochs,
            batch_size=batch_size,
            accumulation=accumulation,
            eval_batch_size=2,
            threshold=0.5,
        )

    return make


@pytest.fixture
def make_run(tmp_path):
    def make(name: str) -> RunFolder:
        run = RunFolder(tmp_path / name)
        run.create(config="", split=Split("made", {"a": "train"}))
        return run

    return make
