"""Area under the ROC curve and average precision from counts, against scikit-learn on all pixels."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mhsvm.evaluation.ranking import describe_ranking, ranking_line
from mhsvm.metrics import RankingCounts, ranking_intervals, ranking_metrics

ONE = torch.tensor([True])


def sample(num, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, max(channels, 2), (num, 12, 14), generator=generator).to(torch.uint8)
    noise = torch.rand(num, channels, 12, 14, generator=generator)
    hint = target[:, None] == torch.arange(channels).view(-1, 1, 1) if channels > 1 else target[:, None] > 0
    return (0.6 * noise + 0.3 * hint).clamp(0, 1), target


def counted(probability, target, batch=2):
    counts = RankingCounts()
    for start in range(0, len(target), batch):
        counts.add(probability[start : start + batch], target[start : start + batch])
    return counts.counts


def test_one_class_against_scikit_learn():
    probability, target = sample(5, 1)
    counts = counted(probability, target)
    assert counts.shape == (5, 1, 256, 2)
    levels, labels = np.rint(probability[:, 0].numpy() * 255), target.numpy()
    metrics = ranking_metrics(counts.sum(dim=0))
    assert metrics["auc"].item() == pytest.approx(roc_auc_score(labels.ravel(), levels.ravel()), abs=1e-12)
    assert metrics["average_precision"].item() == pytest.approx(
        average_precision_score(labels.ravel(), levels.ravel()), abs=1e-12
    )
    of_images = ranking_metrics(counts)
    for row in range(5):
        own = labels[row].ravel(), levels[row].ravel()
        assert of_images["auc"][row].item() == pytest.approx(roc_auc_score(*own), abs=1e-12)
        assert of_images["average_precision"][row].item() == pytest.approx(average_precision_score(*own), abs=1e-12)


def test_each_class_against_the_rest_without_ignored_pixels():
    probability, target = sample(4, 3)
    target[:, :2] = 255
    metrics = ranking_metrics(counted(probability, target).sum(dim=0))
    kept = target.numpy() != 255
    for place, label in enumerate((1, 2)):
        labels, levels = (target.numpy() == label)[kept], np.rint(probability[:, label].numpy() * 255)[kept]
        assert metrics["auc"][place].item() == pytest.approx(roc_auc_score(labels, levels), abs=1e-12)
        assert metrics["average_precision"][place].item() == pytest.approx(
            average_precision_score(labels, levels), abs=1e-12
        )


def test_a_kind_of_pixels_that_lacks():
    probability = torch.tensor([[[[0.25, 0.75]]]])
    no_lesion, only_lesion = (torch.full((1, 1, 2), value, dtype=torch.uint8) for value in (0, 1))
    metrics = ranking_metrics(counted(probability, no_lesion))
    assert metrics["auc"].isnan().all()
    assert metrics["average_precision"].isnan().all()
    metrics = ranking_metrics(counted(probability, only_lesion))
    assert metrics["auc"].isnan().all()
    assert metrics["average_precision"].item() == 1.0


def test_equal_probabilities_count_half():
    probability = torch.full((1, 1, 2, 2), 0.5)
    target = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    metrics = ranking_metrics(counted(probability, target))
    assert (metrics["auc"].item(), metrics["average_precision"].item()) == (0.5, 0.25)


def test_intervals_resample_images():
    probability, target = sample(6, 1, seed=2)
    probability[3:] = 1 - probability[3:]
    counts = counted(probability, target)
    value = ranking_metrics(counts.sum(dim=0))["auc"].item()
    low, high = ranking_intervals(counts, classes=ONE, resamples=500)["auc"]
    assert low < value < high
    assert high - low > 0.2
    # one image has a point
    low, high = ranking_intervals(counts[:1], classes=ONE, resamples=20)["auc"]
    assert low == high == ranking_metrics(counts[0])["auc"].item()


def test_the_description_and_its_line():
    probability, target = sample(4, 1)
    described = describe_ranking(counted(probability, target), ONE)
    assert list(described) == ["auc", "average_precision", "levels", "limits"]
    assert described["levels"] == 256
    low, high = described["limits"]["auc"]
    assert ranking_line(described).startswith(
        f"over the pixels of all images: auc {described['auc']:.4f} ({low:.4f}-{high:.4f}), average_precision "
    )
    probability, target = sample(4, 4)
    target[target == 2] = 0
    described = describe_ranking(counted(probability, target), torch.tensor([True, False, True]))
    assert described["classes"]["2"]["auc"] is None
    known = [described["classes"][label]["auc"] for label in "13"]
    assert described["auc"] == pytest.approx(sum(known) / 2, abs=1e-12)
