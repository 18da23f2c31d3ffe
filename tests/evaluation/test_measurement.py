"""What a test measures of each batch, against the whole at once."""

import numpy as np
import pytest
import torch

from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.measurement import Measurement
from mhsvm.metrics import boundary_distances, confusion_counts

GENERATOR = torch.Generator().manual_seed(0)


def smooth(num, channels, size=16):
    noise = torch.rand(num, channels, 4, 4, generator=GENERATOR)
    return torch.nn.functional.interpolate(noise, size=size, mode="bilinear")


def make_dataset(masks, num_classes):
    ids = tuple(f"case{row}" for row in range(len(masks)))
    return Dataset(ids, torch.zeros(len(masks), 16, 16, 3, dtype=torch.uint8), masks, num_classes)


class Masks:
    """Native masks: each image twice as large as the set's, and one pixel wider."""

    def __init__(self, masks):
        self.masks = masks

    def read(self, image_id):
        mask = self.masks[int(image_id.removeprefix("case"))].numpy().repeat(2, axis=0).repeat(2, axis=1)
        return np.pad(mask, ((0, 0), (0, 1)))


def measure(measurement, probability, order):
    for rows in torch.tensor(order).split(2):
        measurement.add(rows, probability[rows])


def test_one_class():
    probability, coverage = smooth(5, 1), (smooth(5, 1)[:, 0] * 255).to(torch.uint8)
    measurement = Measurement(make_dataset(coverage, 1), threshold=0.4, boundary=True)
    measure(measurement, probability, [4, 0, 1, 3, 2])
    order = [4, 0, 1, 3, 2]
    expected = boundary_distances(probability[order] >= 0.4, (coverage[order] >= 128)[:, None])
    torch.testing.assert_close(measurement.distances[..., :2], expected, rtol=0, atol=0, equal_nan=True)
    assert measurement.names == ("hd95", "assd", "boundary_iou", "nsd", "nsd_diagonal", "auc", "average_precision")
    assert measurement.distances.shape == (5, 1, 7)
    assert measurement.calibration.counts[:, :, 1].sum(dim=1).tolist() == (coverage[order] >= 128).sum((1, 2)).tolist()
    assert measurement.native is None


@pytest.mark.parametrize("boundary", [True, False])
def test_native_size(boundary):
    probability, lesion = smooth(5, 1), (smooth(5, 1)[:, 0] > 0.5).to(torch.uint8)
    dataset = make_dataset(lesion * 255, 1)
    measurement = Measurement(dataset, threshold=0.5, boundary=boundary, native=Masks(lesion))
    measure(measurement, probability, range(5))
    native = measurement.native
    assert native.scores.ids == dataset.ids
    assert native.sizes == ((32, 33),) * 5
    assert (native.scores.distances is not None) is boundary
    assert measurement.distances.shape[-1] == (7 if boundary else 2)
    larger = torch.nn.functional.interpolate(probability, size=(32, 33), mode="bilinear", antialias=True)
    truth = torch.stack([torch.from_numpy(Masks(lesion).read(image_id)) for image_id in dataset.ids])
    assert native.scores.counts[:, 0].tolist() == confusion_counts(larger[:, 0] >= 0.5, truth).tolist()


def test_arguments_of_metrics_reach_both_sizes():
    probability, lesion = smooth(2, 1), (smooth(2, 1)[:, 0] > 0.5).to(torch.uint8)
    values = []
    for tolerance in (0.0, 99.0):
        arguments = {"nsd": {"tolerance": tolerance, "fraction": 0.0}}
        measurement = Measurement(
            make_dataset(lesion * 255, 1), threshold=0.5, boundary=True, arguments=arguments, native=Masks(lesion)
        )
        measure(measurement, probability, range(2))
        place = measurement.names.index("nsd")
        values.append(
            [measurement.distances[..., place].mean(), measurement.native.scores.distances[..., place].mean()]
        )
    assert values[1] == [1.0, 1.0]
    assert max(values[0]) < 0.9


def test_several_classes():
    probability, labels = smooth(4, 3).softmax(dim=1), smooth(4, 3).argmax(dim=1).to(torch.uint8)
    labels[:, 0] = 255
    measurement = Measurement(make_dataset(labels, 3), threshold=0.5, boundary=True, native=Masks(labels))
    measure(measurement, probability, range(4))
    expected = boundary_distances(probability.argmax(dim=1), labels, num_classes=3)
    torch.testing.assert_close(measurement.distances[..., :2], expected, rtol=0, atol=0, equal_nan=True)
    assert measurement.ranking.counts.sum(dim=(2, 3)).tolist() == [[15 * 16] * 2] * 4
    assert measurement.calibration.counts.sum() == 4 * 15 * 16
    assert measurement.native.scores.counts.shape == (4, 2, 4)
    # all but the two ignored rows
    assert measurement.native.confusion.sum() == 4 * (30 * 33 + 2)
