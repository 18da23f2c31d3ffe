"""`mhsvm test` of images that training has seen."""

import csv

import numpy as np
import pytest
import torch

from mhsvm.metrics import summarize
from mhsvm.store import PreparedSet, Sample, write_set
from tests.fixtures.tested import run_test, summary_in


def brighten_into_test(prepared_path, image_id, like):
    """Make an image of a set the same as another one, in other light."""
    with PreparedSet.open(prepared_path) as prepared:
        images, masks = prepared.images(slice(None)), prepared.masks(slice(None))
        columns = [prepared.ids, prepared.subsets]
        size = prepared.size
    rows = {name: row for row, name in enumerate(columns[0])}
    images[rows[image_id]] = np.clip(images[rows[like]] * 0.9 + 3, 0, 255).astype(np.uint8)
    samples = [Sample(*each, size, subset) for *each, subset in zip(columns[0], images, masks, columns[1], strict=True)]
    write_set(prepared_path, samples, name="lesions", size=size, num_classes=1, attributes={}, total=len(samples))


@pytest.fixture
def leaking(make_set, make_checkpoint):
    """A checkpoint with an image in its test part that it was trained on in other light: checkpoint, both ids."""
    prepared_path = make_set()
    data = torch.load(make_checkpoint(prepared_path), weights_only=True)["data"]
    test_id, train_id = data["test_ids"][0], data["train_ids"][0]
    brighten_into_test(prepared_path, test_id, like=train_id)
    return make_checkpoint(prepared_path), test_id, train_id


def test_near_duplicates_of_training_images_are_named_and_both_figures_given(workplace, leaking, capsys):
    checkpoint, test_id, train_id = leaking
    run_test(checkpoint)
    folder = workplace / "results/run/tests/lesions-ratio-60-20-20-1"
    content = summary_in(folder)
    with (folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = torch.tensor([[int(row[name]) for name in ("tp", "fp", "fn", "tn")] for row in rows])
    unseen = counts[[row["id"] != test_id for row in rows]]
    leakage = content["leakage"]
    assert (leakage["seen"], leakage["unknown"], leakage["dropped"]) == ([test_id], None, False)
    assert leakage["metrics"] == {"every": summarize(counts), "unseen": summarize(unseen)}
    assert leakage["num_images"] == {"every": 3, "unseen": 2}
    assert {"leaks.csv", "leaks-1.png"} <= {path.name for path in folder.iterdir()}
    printed = capsys.readouterr().out
    assert "leakage: test images with a counterpart in training, by kind: near-duplicate 1" in printed
    assert f"leakage: {test_id} (like {train_id})" in printed
    assert f"dsc, pooled: {summarize(counts)['dsc']:.4f} of all 3 test images; without" in printed


def test_seen_images_are_dropped_if_asked(workplace, leaking, capsys):
    checkpoint, test_id, _ = leaking
    run_test(checkpoint)
    run_test(checkpoint, "--drop-seen")
    tests = workplace / "results/run/tests"
    plain, dropped = (summary_in(tests / f"lesions-ratio-60-20-20-1{suffix}") for suffix in ("", "-unseen"))
    with (tests / "lesions-ratio-60-20-20-1-unseen/cases.csv").open() as file:
        assert test_id not in [row["id"] for row in csv.DictReader(file)]
    assert dropped["protocol"]["num_images"] == 2
    both = dropped["leakage"]["metrics"]
    assert {name: dropped["metrics"][name] for name in both["unseen"]} == both["unseen"]
    assert both["unseen"] == plain["leakage"]["metrics"]["unseen"]
    # the same images, in another order
    assert both["every"] == pytest.approx(plain["leakage"]["metrics"]["every"], rel=1e-12)
    assert dropped["leakage"]["dropped"] is True
    assert "left out: 1, measured: 2" in capsys.readouterr().out


def test_what_cannot_be_dropped(workplace, make_set, make_checkpoint, make_published):
    checkpoint = make_checkpoint(make_set())
    with pytest.raises(ValueError, match="the checkpoint does not record which images .* Leave `drop_seen` out"):
        run_test(make_published("ultralight_vm_unet", d_state=2), "--drop-seen")
    part = torch.load(checkpoint, weights_only=True)["data"]["train_ids"][0]
    with PreparedSet.open(workplace / "data/lesions.h5") as prepared:
        lines = [f"{name}\t{'test' if name == part else 'unused'}" for name in prepared.ids]
    (workplace / "split.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="the checkpoint has seen all 1 test images: name another split with `split`"):
        run_test(checkpoint, "--split", "file:split.txt", "--drop-seen")


def test_without_the_training_set_only_ids_are_compared(workplace, make_set, make_checkpoint, capsys):
    prepared_path = make_set()
    checkpoint = make_checkpoint(prepared_path)
    make_set("elsewhere", first_id=2, num=4)
    prepared_path.unlink()
    run_test(checkpoint, data="elsewhere")
    assert (
        "leakage: only ids were compared, as the training set is not available: there is no" in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="only ids were compared, .* Leave `drop_seen` out"):
        run_test(checkpoint, "--drop-seen", data="elsewhere")
