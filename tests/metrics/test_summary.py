"""What a test set's images sum up to, against sums by hand."""

import math

import pytest
import torch

from mhsvm.metrics import Scores, bootstrap_intervals, summarize

NAN = math.nan


def test_summary_pools_and_averages():
    counts = torch.tensor([[2, 1, 1, 2], [0, 1, 0, 5], [4, 0, 0, 2]])
    summary = summarize(counts)
    # pooled: tp 6, fp 2, fn 1, tn 9
    assert summary == pytest.approx(
        {
            "miou": 6 / 9,
            "dsc": 12 / 15,
            "accuracy": 15 / 18,
            "sensitivity": 6 / 7,
            "specificity": 9 / 11,
            "miou_per_image": (2 / 4 + 0 + 1) / 3,
            "dsc_per_image": (4 / 6 + 0 + 1) / 3,
            "accuracy_per_image": (4 / 6 + 5 / 6 + 1) / 3,
            "sensitivity_per_image": (2 / 3 + 1 + 1) / 3,
            "specificity_per_image": (2 / 3 + 5 / 6 + 1) / 3,
            "jaccard_thresholded": (0 + 0 + 1) / 3,
        },
        abs=1e-15,
    )


def test_a_jaccard_of_just_the_threshold_counts():
    # 13/20 is 0.65; 129/200 is the next below it with 200 pixels
    assert summarize(torch.tensor([[13, 7, 0, 0]]))["jaccard_thresholded"] == 0.65
    assert summarize(torch.tensor([[129, 71, 0, 0]]))["jaccard_thresholded"] == 0.0


def test_summary_of_several_classes_is_their_mean():
    counts = torch.tensor([[[1, 0, 1, 4], [2, 1, 1, 2]], [[0, 0, 0, 6], [3, 0, 1, 2]]])
    summary = summarize(counts)
    assert summary["miou"] == pytest.approx((1 / 2 + 5 / 8) / 2, abs=1e-15)
    assert summary["miou_per_image"] == pytest.approx((1 / 2 + 2 / 4 + 1 + 3 / 4) / 4, abs=1e-15)
    assert all(math.isfinite(value) for value in summary.values())


def test_no_image_has_no_summary():
    with pytest.raises(ValueError, match="there are no images to summarize"):
        summarize(torch.zeros(0, 4, dtype=torch.int64))


COUNTS = torch.tensor([[[2, 1, 1, 2], [1, 0, 0, 5]], [[0, 1, 0, 5], [0, 0, 2, 4]], [[4, 0, 0, 2], [3, 0, 0, 3]]])
DISTANCES = torch.tensor([[[3.0, 1.0], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]], [[0.0, 0.5], [NAN, NAN]]]).double()


def test_distances_are_averaged_where_there_are_any():
    with_distances = summarize(COUNTS, DISTANCES)
    assert (with_distances.pop("hd95_per_image"), with_distances.pop("assd_per_image")) == (1.5, 0.75)
    assert with_distances == summarize(COUNTS)


def test_classes_weigh_alike_however_many_images_have_their_outline():
    distances = DISTANCES.clone()
    distances[2, 1] = torch.tensor([9.0, 4.0])
    assert summarize(COUNTS, distances)["hd95_per_image"] == (1.5 + 9) / 2


def test_no_outline_at_all_has_no_distance():
    assert math.isnan(summarize(COUNTS, torch.full_like(DISTANCES, NAN))["assd_per_image"])


def test_scores_in_parts():
    scores = Scores(("a", "b", "c"), COUNTS, DISTANCES)
    assert scores.num_unbounded == 1
    assert Scores(("a", "b", "c"), COUNTS).num_unbounded == 0
    assert scores.metrics() == summarize(COUNTS, DISTANCES)
    second = scores.of_class(2)
    assert second.counts.tolist() == COUNTS[:, 1:].tolist()
    assert (second.num_unbounded, second.metrics()["miou"]) == (3, 4 / 6)
    part = scores.rows(torch.tensor([2, 0]))
    assert part.ids == ("c", "a")
    assert torch.equal(part.counts, COUNTS[[2, 0]])
    assert torch.equal(part.distances[:, 0], DISTANCES[[2, 0], 0])


# class 2 has no target pixel in any image; in one, 3 of its pixels are predicted
ABSENT = torch.tensor([[[2, 1, 1, 8], [0, 3, 0, 9]], [[3, 0, 1, 8], [0, 0, 0, 12]]])


def test_a_class_without_a_target_is_left_out_of_the_mean():
    assert summarize(ABSENT) == summarize(ABSENT[:, :1])
    scores = Scores(("a", "b"), ABSENT)
    assert scores.occurring.tolist() == [True, False]
    assert scores.per_image()["dice"].tolist() == [4 / 6, 6 / 7]
    assert bootstrap_intervals(scores, resamples=99) == bootstrap_intervals(scores.of_class(1), resamples=99)


def test_a_class_in_a_single_image_counts_in_all():
    counts = ABSENT.clone()
    counts[1, 1] = torch.tensor([1, 0, 0, 11])
    # pooled: tp 1, fp 3; image a has Dice 0 and image b Dice 1
    assert summarize(counts)["dsc"] == pytest.approx((10 / 13 + 2 / 5) / 2)
    assert summarize(counts)["dsc_per_image"] == pytest.approx((4 / 6 + 6 / 7 + 0 + 1) / 4)


def test_no_class_with_a_target_has_no_mean():
    counts = ABSENT[:, [1, 1]]
    assert all(math.isnan(value) for value in summarize(counts).values())
    # images can still be ordered by what was predicted in them
    assert Scores(("a", "b"), counts).per_image()["dice"].tolist() == [0, 1]


def test_a_single_class_without_a_target_keeps_the_rule_of_empty_masks():
    assert summarize(torch.tensor([[0, 0, 0, 9], [0, 0, 0, 9]]))["dsc"] == 1
    assert summarize(torch.tensor([[0, 2, 0, 7], [0, 0, 0, 9]]))["dsc"] == 0
