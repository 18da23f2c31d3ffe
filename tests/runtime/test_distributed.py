"""Two processes that talk through gloo: this file is their program, too."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.evaluator import evaluate_model
from mhsvm.losses import create_loss
from mhsvm.runtime.distributed import ALONE, LostProcess, World, open_world
from mhsvm.training.errors import NotFinite
from mhsvm.training.job import Job
from mhsvm.training.optimizers import create_optimizer
from mhsvm.training.schedules import create_schedule
from mhsvm.training.step import TrainStep
from mhsvm.training.trainer import train_epoch


def random_set(num_images: int) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (num_images, 8, 8, 3), dtype=torch.uint8, generator=generator)
    masks = (images.float().mean(dim=-1) > 128).to(torch.uint8) * 255
    return Dataset(ids=tuple(f"image{i}" for i in range(num_images)), images=images, masks=masks)


def make_job(world: World, *, num_images: int, accumulation: int = 1, clip_norm: float = 0.0) -> Job:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 1))
    optimizer, loss = create_optimizer("SGD", model, lr=0.1), create_loss("bce_dice")
    augment, dataset = Augment(augmentation="ultralight"), random_set(num_images)
    sum_up = world.sum if world.size > 1 else None
    return Job(
        model=model,
        optimizer=optimizer,
        schedule=create_schedule("CosineAnnealingLR", optimizer, T_max=3),
        loss=loss,
        step=TrainStep(model, optimizer, loss, prepare=augment, clip_norm=clip_norm, sum_up=sum_up),
        infer=model,
        train_set=dataset,
        val_set=dataset,
        augment=augment,
        val_augment=Augment(),
        generator=torch.Generator().manual_seed(3),
        device=torch.device("cpu"),
        description={},
        epochs=1,
        batch_size=4,
        accumulation=accumulation,
        eval_batch_size=2,
        threshold=0.5,
        world=world,
    )


# a last batch of one image leaves nothing to the second process
JOBS = (
    {"num_images": 8},
    {"num_images": 9},
    {"num_images": 9, "accumulation": 2},
    {"num_images": 7, "accumulation": 2, "clip_norm": 1e-2},
)


def train_one_epoch(job: Job) -> dict:
    losses = []
    progress = job.fresh_progress()
    train_epoch(job, progress, lambda record: losses.append((record.num_images, record.loss)))
    weights = torch.cat([parameter.detach().flatten() for parameter in job.model.parameters()])
    return {"losses": losses, "position": progress.position, "weights": weights.tolist()}


def evaluated(world: World, num_images: int) -> dict:
    job = make_job(world, num_images=num_images)
    seen = []
    evaluation = evaluate_model(
        job.model,
        job.val_set,
        augment=job.val_augment,
        loss=job.loss,
        threshold=0.5,
        batch_size=2,
        device=job.device,
        on_batch=lambda rows, probability: seen.extend(rows.tolist()),
        world=world,
    )
    return {"confusion": evaluation.confusion.tolist(), "loss": evaluation.loss, "seen": seen}


def caught(function, *errors: type[BaseException]) -> str:
    try:
        function()
    except errors as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def halt_in_second(world: World) -> list[int]:
    """Let the loss be infinite in the second process alone, in the second step; the images that are named."""
    job = make_job(world, num_images=8)
    steps, compute = [], job.step.compute_loss

    def compute_loss(*batch):
        steps.append(1)
        return compute(*batch) * (float("inf") if world.rank == 1 and len(steps) == 2 else 1.0)

    job.step.compute_loss = compute_loss
    try:
        train_epoch(job, job.fresh_progress())
    except NotFinite as error:
        finite = all(bool(parameter.isfinite().all()) for parameter in job.model.parameters())
        return [*(row for rows in error.record.rows for row in rows.tolist()), finite]
    return []


def all_that_processes_do_together(world: World) -> dict:
    tensors = [torch.full((2, 3), float(world.rank)), torch.tensor(1.0)]
    world.sum(tensors)
    called = []

    def fail_first() -> None:
        raise FileNotFoundError("no such run")

    result = {
        "sums": [tensor.tolist() for tensor in tensors],
        "any": [world.any(world.rank == 1), world.any(False)],
        "gathered": world.gather({"rank": world.rank}),
        "from_first": world.from_first(lambda: called.append(1) or ["a", world.rank]),
        "called": len(called),
        "jobs": [train_one_epoch(make_job(world, **arguments)) for arguments in JOBS],
        "evaluated": [evaluated(world, num_images) for num_images in (1, 5)],
        "found_inf": halt_in_second(world),
    }
    # the errors come last: who does not raise waits for the other one's end
    if world.rank == 0:
        result["error"] = caught(lambda: world.from_first(fail_first), FileNotFoundError)
    else:
        result["error"] = caught(lambda: world.from_first(fail_first), SystemExit)
        result["lost"] = caught(lambda: world.any(True), LostProcess)
    return result


def main(folder: str) -> None:
    torch.set_num_threads(1)
    with open_world() as world:
        result = {"world": [world.rank, world.size, world.local_rank, world.restarts]}
        result |= all_that_processes_do_together(world)
        Path(folder, f"{world.rank}.json").write_text(json.dumps(result))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """Results of each of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RESTART_COUNT": "3",
        # the package need not be installed
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_processes_meet(results):
    assert [result["world"] for result in results] == [[0, 2, 0, 3], [1, 2, 1, 3]]


def test_each_is_told_the_same(results):
    for result in results:
        assert result["sums"] == [[[1.0] * 3] * 2, 2.0]
        assert result["any"] == [True, False]
        assert result["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert result["from_first"] == ["a", 0]
    assert [result["called"] for result in results] == [1, 0]


def test_the_first_that_fails_says_why_and_all_end(results):
    first, second = results
    assert first["error"] == "FileNotFoundError: no such run"
    assert second["error"] == "SystemExit: 2"
    assert second["lost"].startswith("LostProcess: another process of this training has ended")


@pytest.mark.parametrize("row", range(len(JOBS)), ids=str)
def test_an_epoch_is_that_of_one_process(row, results):
    alone = train_one_epoch(make_job(ALONE, **JOBS[row]))
    assert alone["position"] == JOBS[row]["num_images"]
    for result in results:
        together = result["jobs"][row]
        assert together["position"] == alone["position"]
        assert [num for num, _ in together["losses"]] == [num for num, _ in alone["losses"]]
        assert [loss for _, loss in together["losses"]] == pytest.approx(
            [loss for _, loss in alone["losses"]], rel=1e-6
        )
        assert together["weights"] == pytest.approx(alone["weights"], rel=1e-5, abs=1e-7)
    assert results[0]["jobs"][row] == results[1]["jobs"][row]


@pytest.mark.parametrize("row", [0, 1])
def test_every_image_is_evaluated_once(row, results):
    num_images = (1, 5)[row]
    alone = evaluated(ALONE, num_images)
    for result in results:
        assert result["evaluated"][row]["confusion"] == alone["confusion"]
        assert result["evaluated"][row]["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert sum((result["evaluated"][row]["seen"] for result in results), []) == list(range(num_images))


def test_a_loss_that_is_not_finite_in_one_process_halts_all(results):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    for result in results:
        assert result["found_inf"] == [*order[4:].tolist(), True]


def test_who_is_alone_talks_to_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with open_world() as world:
        assert world == World(rank=0, size=1, local_rank=0, restarts=0)
    rows, tensor = torch.arange(5), torch.tensor(3.0)
    world.sum([tensor])
    assert tensor == 3.0
    assert torch.equal(world.shard(rows), rows)
    assert (world.any(True), world.any(False), world.gather(7), world.from_first(lambda: 8)) == (True, False, [7], 8)
    with pytest.raises(ValueError, match="mine"), world.together():
        raise ValueError("mine")


def test_shares_are_pieces_that_make_up_the_whole():
    for num, size in ((7, 3), (2, 3), (6, 2), (1, 4)):
        shares = [World(rank, size).shard(torch.arange(num)) for rank in range(size)]
        assert torch.equal(torch.cat(shares), torch.arange(num))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


if __name__ == "__main__":
    main(sys.argv[1])
