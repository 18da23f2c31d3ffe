"""Agreement with isic-challenge-scoring, the challenge's own implementation, and with scikit-learn, to 1e-9."""

import io
import zipfile

import numpy as np
import pytest
import torch
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image
from sklearn import metrics as sklearn_metrics

from mhsvm.metrics import confusion_counts, per_image, summarize

# the package's own use of pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in Series.rename is deprecated")

NAMES = {
    "accuracy": "accuracy_per_image",
    "sensitivity": "sensitivity_per_image",
    "specificity": "specificity_per_image",
    "jaccard": "miou_per_image",
    "threshold_jaccard": "jaccard_thresholded",
    "dice": "dsc_per_image",
}


def random_masks(num, *, share, seed, size=(23, 31)):
    return torch.rand(num, *size, generator=torch.Generator().manual_seed(seed)) < share


def official(tmp_path, pred, truth):
    """Score masks by the challenge's package, through the files that it reads."""
    for kind, masks in (("truth", truth), ("pred", pred)):
        (tmp_path / kind).mkdir()
        for row, mask in enumerate(masks.numpy()):
            ending = "_segmentation" if kind == "truth" else ""
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / kind / f"ISIC_{row:07d}{ending}.png")
    return SegmentationScore.from_dir(tmp_path / "truth", tmp_path / "pred").macro_average


def check(tmp_path, pred, truth):
    theirs, ours = official(tmp_path, pred, truth), summarize(confusion_counts(pred, truth))
    for name, own in NAMES.items():
        assert ours[own] == pytest.approx(theirs[name], abs=1e-9), name


def test_random_masks(tmp_path):
    truth = random_masks(12, share=0.4, seed=0)
    # from nearly right to nearly wrong, so that some are above and some below the challenge's threshold
    noise = torch.stack([random_masks(1, share=row / 20, seed=row)[0] for row in range(12)])
    check(tmp_path, truth ^ noise, truth)


def test_empty_and_full_masks(tmp_path):
    none, full = torch.zeros(1, 9, 9, dtype=torch.bool), torch.ones(1, 9, 9, dtype=torch.bool)
    some = random_masks(1, share=0.5, seed=0, size=(9, 9))
    pairs = [(pred, truth) for pred in (none, full, some) for truth in (none, full, some)]
    check(tmp_path, torch.cat([pred for pred, _ in pairs]), torch.cat([truth for _, truth in pairs]))


def test_real_masks(tmp_path, shared):
    with zipfile.ZipFile(shared / "data/ISIC-2017_Validation_Part1_GroundTruth.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith("_segmentation.png"))[:40]
        masks = [np.array(Image.open(io.BytesIO(archive.read(name)))) > 0 for name in names]
    truth = torch.from_numpy(np.stack(masks))
    # a prediction that is a little off, and some that are another lesion's
    pred = truth.roll((9, -14), dims=(1, 2))
    pred[::8] = truth.roll(1, dims=0)[::8]
    check(tmp_path, pred, truth)


def test_scikit_learn_on_an_image():
    truth, pred = random_masks(1, share=0.3, seed=1), random_masks(1, share=0.5, seed=2)
    ours = {name: value.item() for name, value in per_image(confusion_counts(pred, truth)).items()}
    flat = truth.flatten().numpy(), pred.flatten().numpy()
    assert ours == pytest.approx(
        {
            "jaccard": sklearn_metrics.jaccard_score(*flat),
            "dice": sklearn_metrics.f1_score(*flat),
            "accuracy": sklearn_metrics.accuracy_score(*flat),
            "sensitivity": sklearn_metrics.recall_score(*flat),
            "specificity": sklearn_metrics.recall_score(*flat, pos_label=False),
        },
        abs=1e-9,
    )
