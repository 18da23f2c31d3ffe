"""`mhsvm report`: the page needs nothing else and shows every case; messages."""

import base64
import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mhsvm.cli import report as command
from mhsvm.cli import test
from mhsvm.cli.main import run
from mhsvm.config import load_config
from mhsvm.report.measured_run import read_cases
from mhsvm.store import PredictionSet, PreparedSet

TEST = "results/run/tests/lesions-ratio-60-20-20-1"
MHS_VM = ("model.name", "mhs_vm", "model.mhs_vm.dims", "8,16", "model.mhs_vm.depths", "1,1")
MHS_VM = (*MHS_VM, "model.mhs_vm.decoder_depths", "1,1", "model.mhs_vm.d_state", "2")


def run_test(checkpoint, *options):
    assert test.main(["--p", str(checkpoint), "--d", "lesions", "--device", "cpu", "--no-boundary", *options]) == 0


@pytest.fixture
def tested(workplace, make_set, make_checkpoint):
    """The folder of a test."""
    run_test(make_checkpoint(make_set()))
    return workplace / TEST


def payload_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)[1])


def decode(url: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
    # WebP has no grayscale: the three channels are equal
    return np.asarray(image.convert("L") if image.format == "WEBP" else image)


class Reader(html.parser.HTMLParser):
    """Collects ids, links and addresses; every element that is opened is closed."""

    VOID = {"meta", "input", "br", "link"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids, self.addresses, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(tested, capsys):
    assert command.main([str(tested.parents[1])]) == 0
    page = (tested / "report.html").read_text(encoding="utf-8")
    assert re.search(rf"{TEST}/report\.html: 3 images, \d\.\d MB\n$", capsys.readouterr().out)
    reader = Reader(page)
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    # links lead to sections of the page, and drawings take from themselves
    assert {address.removeprefix("#") for address in reader.addresses} <= set(reader.ids)
    assert "default-src 'none'; img-src data:" in page
    assert "$" not in page.replace("${", "").partition("<main>")[2].partition("</main>")[0]


def test_every_case_is_embedded_as_it_was_measured(tested, workplace):
    command.main([str(tested)])
    gallery = payload_of((tested / "report.html").read_text())["gallery"]
    scores = read_cases(tested / "cases.csv")
    assert [case["id"] for case in gallery["cases"]] == list(scores.ids)
    assert (gallery["size"], gallery["threshold"], gallery["numClasses"]) == ([32, 32], 127.5, 1)
    with (
        PreparedSet.open(workplace / "data/lesions.h5") as prepared,
        PredictionSet.open(tested / "predictions.h5") as predictions,
    ):
        for place, case in enumerate(gallery["cases"]):
            row = prepared.ids.index(case["id"])
            target = prepared.masks([row])[0] >= 128
            np.testing.assert_array_equal(decode(case["target"]), target)
            np.testing.assert_array_equal(decode(case["probability"]), predictions.probability([place])[0])
            assert np.abs(decode(case["image"]).astype(int) - prepared.images([row])[0]).mean() < 30
            # the page thresholds to the mask that was measured
            tp, fp, fn, _ = scores.counts[place, 0].tolist()
            pred = decode(case["probability"]) >= gallery["threshold"]
            assert ((pred & target).sum(), (pred & ~target).sum(), (~pred & target).sum()) == (tp, fp, fn)
            assert case["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
            assert case["lesionFraction"] == target.mean()
            assert "hd95" not in case


def test_the_page_has_the_values_of_the_summary(tested):
    run_folder = tested.parents[1]
    (run_folder / "config.yaml").write_text(load_config(None, ("train.epochs", "3", "run.name", "<b>")).dump())
    lines = [{"epoch": 1, "train_loss": 1.0, "val_loss": 2.0, "val_dsc": 0.5, "val_miou": 0.4}]
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    times = {"epoch": 1, "seconds": 90, "memory_gib": 1.25, "device": "A <Card>", "processes": 1, "torch": "9"}
    (run_folder / "times.jsonl").write_text(json.dumps(times) + "\n")
    command.main([str(tested)])
    page, summary = (tested / "report.html").read_text(), json.loads((tested / "summary.json").read_text())
    assert summary["protocol"]["split_hash"] in page
    assert summary["protocol"]["set"]["checksum"] in page
    low, high = summary["intervals"]["limits"]["dsc_per_image"]
    assert f"<dd>{summary['metrics']['dsc_per_image']:.4f}<small>95% interval {low:.4f}-{high:.4f}</small>" in page
    assert "The training has done 1 of 3 epochs." in page
    assert "<td>1 min 30 s</td><td>1.25 GiB</td><td>A &lt;Card&gt;, torch 9</td>" in page
    assert "name: &lt;b&gt;" in page
    assert 'aria-label="Learning curves: loss"' in page
    assert "from uncalibrated images" in page
    # three images are too few for a group
    assert "<td>3</td><td>too few</td>" in page
    assert payload_of(page)["gates"] is None
    assert '<section id="gates" hidden>' in page


def test_gates_are_shown(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set(), *MHS_VM)
    run_test(checkpoint)
    ids = read_cases(workplace / TEST / "cases.csv").ids
    run_test(checkpoint, "--save-maps", *ids[:2])
    command.main([TEST])
    page = (workplace / TEST / "report.html").read_text()
    gates = payload_of(page)["gates"]
    assert [image["id"] for image in gates["images"]] == list(ids[:2])
    assert (gates["patterns"], gates["blocks"][0]) == (["C", "X", "S", "Z"], "encoder, stage 1, block 1")
    block = gates["images"][0]["blocks"][0]
    assert [decode(url).shape for url in block["maps"]] == [(8, 8)] * 4
    assert all(sum(fractions) == pytest.approx(1) for fractions in block["routeFractions"])
    assert '<section id="gates">' in page


def test_several_classes(workplace, make_set, make_checkpoint):
    make_set(num_classes=3)
    settings = ("model.num_classes", "3", "loss.name", "ce_dice")
    run_test(make_checkpoint(workplace / "data/lesions.h5", *settings))
    command.main([TEST])
    gallery = payload_of((workplace / TEST / "report.html").read_text())["gallery"]
    assert gallery["numClasses"] == 3
    with PredictionSet.open(workplace / TEST / "predictions.h5") as predictions:
        maps = predictions.probability([0])[0]
    case = gallery["cases"][0]
    np.testing.assert_array_equal(decode(case["probability"]), maps.max(axis=0))
    np.testing.assert_array_equal(decode(case["prediction"]), maps.argmax(axis=0))
    assert set(np.unique(decode(case["target"]))) == {0, 1, 2, 255}


def test_the_same_test_makes_the_same_page(tested):
    command.main([TEST])
    first = (tested / "report.html").read_bytes()
    command.main([TEST])
    assert (tested / "report.html").read_bytes() == first


def test_a_published_file_has_unknown_training_images(workplace, make_set, make_published):
    make_set()
    run_test(make_published("ultralight_vm_unet"))
    command.main(["results/published"])
    page = (workplace / "results/published/tests/lesions-all/report.html").read_text()
    assert "There are no learning curves: the checkpoint is not in the folder of its training." in page
    assert "<p>the checkpoint does not record which images it was trained on.</p>" in page
    assert "<th scope=row>test images trained on, by id</th><td><code>not recorded</code></td>" in page
    assert "<code>published.pth (published)</code>" in page


def test_images_seen_in_training_are_reported(workplace, make_set, make_checkpoint):
    make_set()
    checkpoint = make_checkpoint(workplace / "data/lesions.h5")
    run_test(checkpoint, "--split", "all")
    folder = workplace / "results/run/tests/lesions-all"
    command.main([str(folder)])
    page, leakage = (folder / "report.html").read_text(), json.loads((folder / "summary.json").read_text())["leakage"]
    assert leakage["counts"] == {"same id": 9}
    assert "The checkpoint was trained on 9 of the test images and chosen on 3" in page
    assert "9 test images are in training or have a near-duplicate there" in page
    for part, label, num in (("every", "with seen images", 15), ("unseen", "without them", 6)):
        metrics = leakage["metrics"][part]
        cells = "".join(f"<td>{metrics[name]:.4f}</td>" for name in ("miou", "dsc", "miou_per_image", "dsc_per_image"))
        assert f"<th scope=row>{label}</th><td>{num}</td>{cells}" in page
    (seen,) = (each for each in payload_of(page)["gallery"]["filters"] if each["title"] == "training")
    assert len(seen["rows"]) == 9


def test_metrics_at_native_size_are_shown_too(workplace, make_set, make_checkpoint):
    make_set()
    masks = workplace / "native"
    masks.mkdir()
    with PreparedSet.open(workplace / "data/lesions.h5") as prepared:
        for row, image_id in enumerate(prepared.ids):
            mask = Image.fromarray(prepared.masks([row])[0]).resize((48, 40), Image.Resampling.NEAREST)
            mask.save(masks / f"{image_id}.png")
    run_test(make_checkpoint(workplace / "data/lesions.h5"), "--native-truth", str(masks))
    command.main([TEST])
    native = json.loads((workplace / TEST / "summary.json").read_text())["native"]
    page = (workplace / TEST / "report.html").read_text()
    table = page[page.index("At the images&#39; own sizes, with 95% intervals") :]
    low, high = native["intervals"]["limits"]["dsc"]
    value = f"{native['metrics']['dsc']:.4f}"
    assert f'<th scope=row>dsc</th><td>{value} <span class="quiet">{low:.4f}-{high:.4f}</span></td>' in table


def test_all_tests_of_a_run_or_one_of_them(tested, workplace, capsys):
    other = tested.with_name("lesions-other")
    shutil.copytree(tested, other)
    assert command.main(["results/run", "--test", "lesions-other"]) == 0
    assert not (tested / "report.html").exists()
    (other / "report.html").unlink()
    assert command.main(["results/run"]) == 0
    assert (tested / "report.html").read_bytes()
    assert (other / "report.html").read_bytes()
    assert run(command.main, ["results/run", "--out", "page.html"]) == 2
    assert "choose with --test one of lesions-other, lesions-ratio-60-20-20-1" in capsys.readouterr().err
    assert command.main(["results/run", "--test", "lesions-other", "--out", "page.html"]) == 0
    assert (workplace / "page.html").read_text().startswith("<!doctype html>")


def test_a_set_that_moved_or_changed(tested, workplace, make_set, capsys):
    prepared = workplace / "data/lesions.h5"
    prepared.rename(workplace / "moved.h5")
    assert run(command.main, [TEST]) == 2
    assert (
        f"was predicted on is not at {prepared} nor at data/lesions.h5: give its path with --d"
        in capsys.readouterr().err
    )
    assert command.main([TEST, "--d", "moved.h5"]) == 0
    (tested / "report.html").unlink()
    make_set(first_id=500)
    assert run(command.main, [TEST]) == 2
    assert re.search(r"lesions\.h5 is not the set that .* was predicted on: its checksum is", capsys.readouterr().err)
    assert not (tested / "report.html").exists()


def test_wrong_folders_are_refused(tested, workplace, capsys):
    def error(*arguments: str) -> str:
        assert run(command.main, arguments) == 2
        return capsys.readouterr().err

    assert "there is no folder nowhere" in error("nowhere")
    assert "has no test 'other'; it has lesions-ratio-60-20-20-1" in error("results/run", "--test", "other")
    (workplace / "empty/checkpoints").mkdir(parents=True)
    assert "empty is a run that has not finished an epoch" in error("empty")
    cases = (tested / "cases.csv").read_text()
    (tested / "cases.csv").write_text("".join(cases.splitlines(keepends=True)[:-1]))
    assert "cases.csv changed after the measurement, so that the checksum is wrong: test or score" in error(TEST)
    # tests of older versions have no checksums
    content = json.loads((tested / "summary.json").read_text())
    del content["checksums"]
    (tested / "summary.json").write_text(json.dumps(content))
    assert "do not hold the same images: test again" in error(TEST)
    (tested / "cases.csv").write_text(cases)
    summary = json.loads((tested / "summary.json").read_text())
    (tested / "summary.json").write_text(json.dumps({**summary, "schema": 1}))
    assert f"{TEST} is of an older version: its schema is 1, not 2. Test again" in error(TEST)
    (tested / "predictions.h5").unlink()
    assert f"{TEST} has no predictions.h5: there are no probabilities to show. Report the test" in error(TEST)
    assert not (tested / "report.html").exists()
