"""`test.py`: the right images, the right numbers, all that is to be left, and every message."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from mhsvm.assemble import evaluation, load_predictor, load_trained
from mhsvm.cli import test as command
from mhsvm.cli.main import run
from mhsvm.data.augment import Augment
from mhsvm.evaluation import folder as folder_module
from mhsvm.metrics import Scores, bootstrap_intervals, boundary_distances, confusion_counts, measure_masks, summarize
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.store import PredictionSet, PreparedSet, read_gate_maps
from tests.fixtures.tested import run_test, summary_in

CPU = torch.device("cpu")
MHS_VM = ("model.name", "mhs_vm", "model.mhs_vm.dims", "8,16", "model.mhs_vm.depths", "1,1")
MHS_VM = (*MHS_VM, "model.mhs_vm.decoder_depths", "1,1", "model.mhs_vm.d_state", "2")


@pytest.fixture
def tested(workplace, make_set, make_checkpoint, capsys):
    """A checkpoint, its set, the folder of its test, and what was printed."""
    prepared_path = make_set()
    checkpoint = make_checkpoint(prepared_path)
    run_test(checkpoint, "--batch-size", "2")
    return checkpoint, prepared_path, workplace / "results/run/tests/lesions-ratio-60-20-20-1", capsys.readouterr().out


@pytest.fixture
def by_hand(tested):
    """Ids, probabilities and counts of the own test part, one image at a time."""
    checkpoint, prepared_path, _, _ = tested
    trained = load_trained(checkpoint, device=CPU)
    ids = trained.data["test_ids"]
    with PreparedSet.open(prepared_path) as prepared:
        rows = [prepared.ids.index(image_id) for image_id in ids]
        images, masks = torch.from_numpy(prepared.images(rows)), torch.from_numpy(prepared.masks(rows))
    inputs, _ = Augment()(images.permute(0, 3, 1, 2), masks)
    with torch.inference_mode():
        maps = torch.cat([trained.model(image[None]) for image in inputs]).sigmoid()[:, 0]
    return ids, maps, confusion_counts(maps >= 0.5, masks >= 128)


def test_the_own_test_part_is_measured_image_by_image(tested, by_hand):
    _, _, folder, _ = tested
    ids, maps, counts = by_hand
    assert len(ids) == 3
    assert {path.name for path in folder.iterdir()} == {
        "cases.csv",
        "summary.json",
        "predictions.h5",
        "figures",
        "log.txt",
        "times.json",
    }
    with (folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids
    assert [[int(row[name]) for name in ("tp", "fp", "fn", "tn")] for row in rows] == counts.tolist()
    with PredictionSet.open(folder / "predictions.h5") as predictions:
        assert list(predictions.ids) == ids
        np.testing.assert_allclose(predictions.probability(slice(None)) / 255, maps.numpy(), atol=0.5 / 255 + 1e-5)
    assert len(list((folder / "figures").iterdir())) == len(ids) + 1


def test_the_summary_says_what_was_measured_how(tested, by_hand):
    checkpoint, prepared_path, folder, _ = tested
    ids, _, counts = by_hand
    content = summary_in(folder)
    assert {name: content["metrics"][name] for name in summarize(counts)} == summarize(counts)
    tp, fp, fn, tn = counts.sum(dim=0).tolist()
    assert content["confusion_matrix"] == [[tn, fp], [fn, tp]]
    trained = load_trained(checkpoint, device=CPU)
    with PreparedSet.open(prepared_path) as prepared:
        assert content["protocol"] == {
            "set": {"name": "lesions", "checksum": prepared.checksum, "size": [32, 32]},
            "split": "ratio-60-20-20-1",
            "split_hash": trained.data["split_hash"],
            "reason": "the checkpoint's own; it was trained on this set",
            "part": "test",
            "num_images": len(ids),
            "trained_on": 0,
            "chosen_on": 0,
            "threshold": 0.5,
            "measured_at": "32 x 32 only",
        }
    assert content["model"]["name"] == "ultralight_vm_unet"
    assert (content["checkpoint"]["file"], content["checkpoint"]["published"]) == ("best.pt", False)
    assert re.fullmatch("[0-9a-f]{64}", content["checkpoint"]["sha256"])
    assert (content["schema"], content["device"]) == (2, "cpu")


def test_boundaries_intervals_calibration_and_other_thresholds(tested, by_hand):
    _, _, folder, printed = tested
    _, maps, counts = by_hand
    with PreparedSet.open(tested[1]) as prepared:
        rows = [prepared.ids.index(image_id) for image_id in by_hand[0]]
        truth = torch.from_numpy(prepared.masks(rows)) >= 128
    distances = boundary_distances(maps >= 0.5, truth)
    content = summary_in(folder)
    assert content["metrics"]["hd95_per_image"] == summarize(counts, distances)["hd95_per_image"]
    intervals = bootstrap_intervals(Scores(tuple(by_hand[0]), counts[:, None], distances))
    assert {name: list(limits) for name, limits in intervals.items()}.items() <= content["intervals"]["limits"].items()
    assert content["arguments"] == {"boundary_iou": {"fraction": 0.02}, "nsd": {"tolerance": 2.0, "fraction": 0.005}}
    nsd = measure_masks(maps >= 0.5, truth, metrics=["nsd"])[..., 0]
    assert content["metrics"]["nsd_per_image"] == nsd.mean().item()
    with PredictionSet.open(folder / "predictions.h5") as predictions:
        levels = predictions.probability(slice(None))
    order = [predictions.ids.index(image_id) for image_id in by_hand[0]]
    labels = truth.numpy().ravel()
    assert content["ranking"]["auc"] == pytest.approx(roc_auc_score(labels, levels[order].ravel()), abs=1e-12)
    assert content["ranking"]["average_precision"] == pytest.approx(
        average_precision_score(labels, levels[order].ravel()), abs=1e-12
    )
    assert content["boundary"] == {"unit": "pixels", "images_without_outline": 0}
    assert content["native"] is None
    assert sum(each["num_pixels"] for each in content["calibration"]["bins"]) == 3 * 32 * 32
    gap = abs(maps.double().mean() - truth.double().mean()).item()
    assert content["calibration"]["ece"] >= gap - 1e-6
    (at_half,) = (figures for figures in content["thresholds"] if figures["threshold"] == 0.5)
    assert at_half["dsc"] == content["metrics"]["dsc"]
    with (folder / "cases.csv").open() as file:
        assert [float(row["assd"]) for row in csv.DictReader(file)] == distances[:, 0, 1].tolist()
    assert "measured at 32 x 32 only; --native-truth PATH measures at the images' own sizes too" in printed
    assert f"expected calibration error {content['calibration']['ece']:.4f}" in printed


def test_where_the_set_lies_and_what_the_test_took_stand_beside(tested):
    _, prepared_path, folder, _ = tested
    with PredictionSet.open(folder / "predictions.h5") as predictions:
        assert predictions.attributes["set_path"] == str(prepared_path)
    times = json.loads((folder / "times.json").read_text())
    assert times["num_images"] == 3
    assert times["seconds"] > 0
    assert times["memory_gib"] > 0.01


def test_gate_maps_of_chosen_images(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set(), *MHS_VM)
    ids = load_trained(checkpoint, device=CPU).data["test_ids"]
    run_test(checkpoint, "--save-maps", ids[2], ids[0], ids[2])
    maps = read_gate_maps(workplace / "results/run/tests/lesions-ratio-60-20-20-1/maps.h5")
    assert (maps.ids, maps.patterns, maps.gate) == ((ids[2], ids[0]), ("C", "X", "S", "Z"), "relu")
    assert [block.block for block in maps.blocks] == [
        *("encoder.0.blocks.0", "encoder.1.blocks.0", "decoder.0.blocks.0", "decoder.1.blocks.0")
    ]
    assert [block.gate.shape for block in maps.blocks] == [(2, 4, 8, 8), (2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 8, 8)]
    assert not np.array_equal(maps.blocks[0].route_share[0], maps.blocks[0].route_share[1])


def test_gate_maps_that_cannot_be(workplace, make_set, make_checkpoint, capsys):
    prepared_path = make_set()
    options = ("--d", "lesions", "--device", "cpu", "--save-maps", "case000", "nobody")
    assert run(command.main, ["--p", str(make_checkpoint(prepared_path)), *options]) == 2
    assert "network, UltraLightVMUNet, has no scan heads: leave --save-maps out" in capsys.readouterr().err
    assert run(command.main, ["--p", str(make_checkpoint(prepared_path, *MHS_VM)), *options]) == 2
    assert (
        "--save-maps names images that are not among the test images: nobody. Name test images, such as case000"
        in capsys.readouterr().err
    )
    assert not (workplace / "results/run/tests").exists()


def test_without_boundaries(workplace, make_set, make_checkpoint, capsys):
    run_test(make_checkpoint(make_set()), "--no-boundary", "--out", "quick")
    content = summary_in(workplace / "quick")
    assert "boundary" not in content
    assert "hd95_per_image" not in content["metrics"]
    assert "hd95" not in (workplace / "quick/cases.csv").read_text()
    assert "hd95" not in capsys.readouterr().out


@pytest.fixture
def native_set(workplace, make_set, make_checkpoint):
    """A checkpoint, and a set of larger images than it sees: folders of both, and the prepared file data/moles.h5."""
    checkpoint = make_checkpoint(make_set())
    generator = np.random.default_rng(0)
    for row in range(4):
        h, w = 50 + 7 * row, 70 + 3 * row
        rows, columns = np.mgrid[:h, :w]
        lesion = (rows - h / 2) ** 2 + (columns - w / 2) ** 2 < (10 + row) ** 2
        image = np.where(lesion[..., None], 60, 200) + generator.integers(-30, 30, size=(h, w, 3))
        for kind, array in (("images", image.astype(np.uint8)), ("masks", lesion.astype(np.uint8) * 255)):
            path = workplace / "moles" / kind / f"mole{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    prepare_set("folder", [workplace / "moles"], workplace / "data/moles.h5", name="moles", size=32)
    return checkpoint


def test_native_figures_are_those_of_the_predictor(workplace, native_set, capsys):
    run_test(native_set, "--native-truth", "moles", data="moles")
    folder = workplace / "results/run/tests/moles-all"
    predictor = load_predictor(native_set, device="cpu")
    with (folder / "cases_native.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 4
    for name, row in rows.items():
        truth = np.array(Image.open(workplace / f"moles/masks/{name}.png")) > 0
        mask = torch.from_numpy(predictor(workplace / f"moles/images/{name}.png").mask)[None]
        counts = confusion_counts(mask, torch.from_numpy(truth)[None])[0]
        assert [int(row[key]) for key in ("height", "width", "tp", "fp", "fn", "tn")] == [
            *truth.shape,
            *counts.tolist(),
        ]
        assert row["hd95"] == "" or float(row["hd95"]) >= 0
    content = summary_in(folder)
    assert content["protocol"]["measured_at"] == "32 x 32 and native"
    pooled = torch.tensor([[int(row[key]) for key in ("tp", "fp", "fn", "tn")] for row in rows.values()])
    assert content["native"]["metrics"]["miou"] == summarize(pooled)["miou"]
    tp, fp, fn, tn = pooled.sum(dim=0).tolist()
    assert content["native"]["confusion_matrix"] == [[tn, fp], [fn, tp]]
    printed = capsys.readouterr().out
    assert "measured at 32 x 32, and at the sizes of the masks in moles" in printed
    assert printed.index("at native size:") < printed.index("test of best model")


def test_native_masks_that_are_missing(workplace, native_set):
    (workplace / "moles/masks/mole2.png").unlink()
    with pytest.raises(ValueError, match="test image without a native mask: 1\n    mole2"):
        run_test(native_set, "--native-truth", "moles/masks", data="moles")
    assert not (workplace / "results/run/tests").exists()


def test_the_choice_is_printed_first_and_the_line_to_grep_last(tested, by_hand):
    _, _, folder, printed = tested
    assert (folder / "log.txt").read_text() == printed
    lines = printed.splitlines()
    assert re.fullmatch(r"results/run/checkpoints/best\.pt: ultralight_vm_unet, [\d,]+ parameters, on cpu", lines[0])
    described = r"lesions \(data/lesions\.h5\): 15 images of 32 x 32 \(height x width\), lesion masks"
    assert re.fullmatch(described + ", checksum [0-9a-f]{12}", lines[1])
    own = "the checkpoint's own; it was trained on this set"
    assert re.fullmatch(rf"split ratio-60-20-20-1 \({own}\), sha256 [0-9a-f]{{64}}", lines[2])
    assert lines[3] == "3 test images; the checkpoint was trained on 0 of them, and chosen on 0"
    (line,) = (line for line in lines if line.startswith("test of best model"))
    figure = r"\d\.\d{6}"
    assert re.fullmatch(
        rf"test of best model, loss: \d+\.\d{{4}},miou: {figure}, f1_or_dsc: {figure}, accuracy: {figure}, "
        rf"specificity: {figure}, sensitivity: {figure}, confusion_matrix: \[\[\d+, \d+\], \[\d+, \d+\]\]",
        line,
    )
    assert f"miou: {summarize(by_hand[2])['miou']:.6f}," in line


def test_two_runs_leave_the_same_bytes(tested):
    checkpoint, _, folder, _ = tested
    before = {name: (folder / name).read_bytes() for name in ("summary.json", "cases.csv")}
    # sheets of an older test with more leaks
    (folder / "leaks-7.png").touch()
    run_test(checkpoint, "--batch-size", "2")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not (folder / "leaks-7.png").exists()


def test_a_folder_with_a_file_of_the_user_is_refused_before_the_work(tested, monkeypatch):
    checkpoint, _, folder, _ = tested
    (folder / "thesis.txt").write_text("mine")
    monkeypatch.setattr("mhsvm.assemble.build_test", lambda *_, **__: pytest.fail("the work has begun"))
    for options in ((), ("--out", str(folder))):
        with pytest.raises(FileExistsError, match=r"holds more than a test, thesis\.txt"):
            run_test(checkpoint, *options)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_failed_test_keeps_the_older_one(tested, monkeypatch):
    checkpoint, _, folder, _ = tested

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(folder_module, "write_case_images", fail)
    before = (folder / "summary.json").read_bytes()
    with pytest.raises(OSError, match="the disk is full"):
        run_test(checkpoint)
    assert (folder / "summary.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_another_checkpoint_of_the_run_has_a_folder_of_its_own(workplace, make_set, make_checkpoint):
    run_test(make_checkpoint(make_set(), path="results/run/checkpoints/last.pt"))
    assert (workplace / "results/run/tests/lesions-ratio-60-20-20-1-last/summary.json").is_file()


def test_a_checkpoint_from_elsewhere_has_its_folder_below_results(workplace, make_set, make_checkpoint):
    split = workplace / "my split.txt"
    split.write_text("".join(f"case{row:03d}\ttest\n" for row in range(15)))
    run_test(make_checkpoint(make_set(), path="weights/mine.pt"), "--split", "file:my split.txt")
    assert (workplace / "results/mine/tests/lesions-file-my-split.txt/summary.json").is_file()


def test_a_chosen_folder_is_only_taken_from_a_test(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set())
    (workplace / "thesis").mkdir()
    run_test(checkpoint, "--out", "thesis")
    run_test(checkpoint, "--out", "thesis")
    (workplace / "thesis/summary.json").unlink()
    with pytest.raises(FileExistsError, match="thesis exists and is not the folder of a test: choose another one"):
        run_test(checkpoint, "--out", "thesis")
    assert (workplace / "thesis/cases.csv").is_file()


def test_another_set_is_tested_whole(workplace, make_set, make_checkpoint, capsys):
    checkpoint = make_checkpoint(make_set())
    make_set("others", num=10, first_id=10)
    run_test(checkpoint, data="others")
    content = summary_in(workplace / "results/run/tests/others-all")["protocol"]
    assert (content["split"], content["num_images"]) == ("all", 10)
    seen = content["trained_on"], content["chosen_on"]
    recorded = load_trained(checkpoint, device=CPU).data
    shared = {f"case{row:03d}" for row in range(10, 15)}
    assert seen == (len(shared & {*recorded["train_ids"]}), len(shared & {*recorded["val_ids"]}))
    assert sum(seen) > 0
    printed = capsys.readouterr().out
    assert f"the checkpoint was trained on {seen[0]} of them, and chosen on {seen[1]}" in printed
    assert "warning: the checkpoint has seen images of this test part" in printed


def test_the_own_set_at_another_size(workplace, make_set, make_checkpoint, capsys):
    checkpoint = make_checkpoint(make_set())
    make_set(side=64)
    run_test(checkpoint)
    printed = capsys.readouterr().out
    assert "this set has the ids of its training set, but was prepared otherwise" in printed
    assert "warning: the set holds images of 64 x 64, the network was trained at 32 x 32" in printed
    content = summary_in(workplace / "results/run/tests/lesions-ratio-60-20-20-1")
    assert (content["protocol"]["num_images"], content["checkpoint"]["size"]) == (3, [32, 32])


def test_own_gate_threshold_comes_from_the_config(workplace, make_set, make_checkpoint, capsys):
    checkpoint = make_checkpoint(make_set(num=10), *MHS_VM, "model.mhs_vm.gate_threshold", "0.25")
    run_test(checkpoint, "--h", "4")
    folder = workplace / "results/run/tests/lesions-ratio-60-20-20-1"
    assert summary_in(folder)["model"]["gate_threshold"] == 0.25
    assert "note:" not in capsys.readouterr().out


def test_a_folder_is_tested_as_it_is(workplace, make_set, make_checkpoint):
    prepared_path = make_set()
    with PreparedSet.open(prepared_path) as prepared:
        for row in range(3):
            for kind, array in (("images", prepared.images([row])[0]), ("masks", prepared.masks([row])[0])):
                path = workplace / "data/own/test" / kind / f"{prepared.ids[row]}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    run_test(make_checkpoint(prepared_path), data="own")
    content = summary_in(workplace / "results/run/tests/own-all")
    assert (content["protocol"]["num_images"], content["protocol"]["set"]["size"]) == (3, [32, 32])


def test_broken_weights_leave_no_folder(workplace, make_set, make_checkpoint):
    def break_weights(content):
        content["model"]["head.bias"] += float("nan")

    checkpoint = make_checkpoint(make_set(), change=break_weights)
    with pytest.raises(ValueError, match="the model's output is not finite: its weights have diverged"):
        run_test(checkpoint)
    assert not any((workplace / "results/run/tests").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--h", "4"], "the checkpoint's network, UltraLightVMUNet, has no scan heads: leave --heads out"),
        (["--gate-threshold", "0.1"], "ultralight_vm_unet has no gate: leave --gate-threshold out"),
        (["--split", "ratio-70-30-0-1"], "split 'ratio-70-30-0-1' of data/lesions.h5 has no test part"),
        (["--split", "thirds"], "unknown split 'thirds'; known: official, wu-sorted"),
        (["--model", "resnet"], "unknown model 'resnet'; known: "),
        (["--model", "vm_unet"], "the file holds weights of ultralight_vm_unet"),
        (["--device", "tpu9"], "device 'tpu9' cannot be used here"),
        (["--backend", "fastest"], "fastest"),
        (["--d", "isic2031"], "there is no data set 'isic2031'"),
        (["--p", "absent.pt"], "there is no checkpoint absent.pt"),
    ],
)
def test_what_a_user_can_do_wrong(make_set, make_checkpoint, capsys, options, message):
    checkpoint = make_checkpoint(make_set())
    assert run(command.main, ["--p", str(checkpoint), "--d", "lesions", "--device", "cpu", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_everything_that_is_wrong_is_said_at_once_before_any_work(
    workplace, make_set, make_checkpoint, capsys, monkeypatch
):
    """The search for seen images, which takes long, is not reached."""
    checkpoint = make_checkpoint(make_set())
    monkeypatch.setattr(evaluation, "find_leakage", None)
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.txt").write_text("kept")
    (workplace / "masks").mkdir()
    options = ["--p", str(checkpoint), "--d", "lesions", "--device", "tpu9", "--out", "mine", "--backend", "nope"]
    options += ["--split", "thirds", "--heads", "3", "--gate-threshold", "0.5"]
    assert run(command.main, options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 5 reasons why this test cannot start:\n")
    for part in (
        "mine exists",
        "device 'tpu9' cannot",
        "backend: unknown name 'nope'",
        "has no scan heads",
        "has no gate",
    ):
        assert part in error
    options = ["--p", str(checkpoint), "--d", "lesions", "--out", "mine", "--split", "thirds", "--save-maps", "case000"]
    assert run(command.main, options) == 2
    assert capsys.readouterr().err.startswith("error: 2 reasons why this test cannot start:\n  mine exists")
    assert run(command.main, ["--p", str(checkpoint), "--d", "lesions", "--native-truth", "masks"]) == 2
    assert "test image without a native mask" in capsys.readouterr().err
    make_set("odd", side=40)
    assert run(command.main, ["--p", str(checkpoint), "--d", "odd", "--save-maps", "case000"]) == 2
    error = capsys.readouterr().err
    assert "multiples of 32, and those of data/odd.h5 are 40 x 40" in error
    assert "has no scan heads: leave --save-maps out" in error
    assert [path.name for path in (workplace / "mine").iterdir()] == ["thesis.txt"]
    assert not (workplace / "results/run/tests").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hea", "4"], "unknown option '--hea'. Did you mean '--heads'?"),
        (["--h", "four"], "argument --heads/--h: invalid int value: 'four'"),
        (["--batch-size", "0"], "argument --batch-size: takes a whole number from 1 on, not '0'"),
    ],
)
def test_options_are_spelt_out(capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--p", "a.pt", "--d", "lesions", *options])
    assert message in capsys.readouterr().err


def test_help_is_not_heads(capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    assert "check that the checkpoint has N heads" in capsys.readouterr().out
