"""Prepared sets and predictions: what is written comes back, and what is broken is named."""

import pickle
import zipfile

import h5py
import numpy as np
import pytest

from mhsvm.store import PredictionSet, PredictionWriter, PreparedSet, Sample, write_set


def make_samples(num, size=(8, 12)):
    h, w = size
    return [
        Sample(
            id=f"case_{index}",
            image=(np.arange(h * w * 3).reshape(h, w, 3) * 7 + index).astype(np.uint8),
            mask=(np.arange(h * w).reshape(h, w) * 3 + index).astype(np.uint8),
            original_size=(100 + index, 200),
            subset=("train", "val", "test", "")[index % 4],
            group=f"patient {index // 2}",
        )
        for index in range(num)
    ]


def write(path, samples, *, name="made", attributes=None, total=None):
    total = len(samples) if total is None else total
    return write_set(path, samples, name=name, size=(8, 12), num_classes=1, attributes=attributes or {}, total=total)


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "made.h5"
    write(path, make_samples(5), attributes={"version": "0.1.0", "num": 3, "share": 0.5})
    return path


def test_set_comes_back(made):
    samples = make_samples(5)
    with PreparedSet.open(made) as prepared:
        assert len(prepared) == 5
        assert (prepared.path, prepared.name) == (made, "made")
        assert (prepared.size, prepared.num_classes) == ((8, 12), 1)
        assert prepared.ids == tuple(sample.id for sample in samples)
        assert prepared.subsets == tuple(sample.subset for sample in samples)
        assert prepared.groups == tuple(sample.group for sample in samples)
        assert prepared.original_sizes.tolist() == [list(sample.original_size) for sample in samples]
        assert prepared.attributes == {"version": "0.1.0", "num": 3, "share": 0.5}
        images = np.stack([sample.image for sample in samples])
        masks = np.stack([sample.mask for sample in samples])
        for rows in (slice(None), slice(1, 4), [3, 0, 3], np.array([4]), []):
            index = rows if isinstance(rows, slice) else np.asarray(rows, int)
            np.testing.assert_array_equal(prepared.images(rows), images[index])
            np.testing.assert_array_equal(prepared.masks(rows), masks[index])


def test_a_set_without_a_source_has_its_name(made, tmp_path):
    with PreparedSet.open(made) as prepared:
        assert (prepared.source, prepared.is_synthetic) == ("made", False)
    write(tmp_path / "new.h5", make_samples(1), attributes={"source": "folder", "synthetic": 1})
    with PreparedSet.open(tmp_path / "new.h5") as prepared:
        assert (prepared.source, prepared.is_synthetic) == ("folder", True)


def test_rows_out_of_range_or_no_integers(made):
    with PreparedSet.open(made) as prepared:
        with pytest.raises(IndexError, match=r"rows must be in 0\.\.4; got 5"):
            prepared.images([0, 5])
        with pytest.raises(ValueError, match=r"integer indices; got bool: use np.flatnonzero"):
            prepared.masks(np.ones(5, bool))


def test_set_travels_to_another_process_by_its_path(made):
    with PreparedSet.open(made) as prepared, pickle.loads(pickle.dumps(prepared)) as copy:
        np.testing.assert_array_equal(copy.images([2]), prepared.images([2]))


def test_checksum_is_of_ids_images_masks_and_nothing_else(tmp_path):
    samples = make_samples(3)
    checksum = write(tmp_path / "a.h5", samples)
    assert checksum == "4fb542d8c0ff086bcc0218bb6ca0289426c5b9ad615482b88d1b9d0bdeec9cbd"
    assert write(tmp_path / "b.h5", samples, name="other", attributes={"version": "9"}) == checksum
    assert PreparedSet.open(tmp_path / "b.h5").checksum == checksum
    changed = [make_samples(3) for _ in range(3)]
    object.__setattr__(changed[0][1], "id", "other")
    changed[1][2].image[7, 11, 2] ^= 1
    changed[2][0].mask[0, 0] ^= 1
    others = {write(tmp_path / f"{index}.h5", each) for index, each in enumerate(changed)}
    assert len(others | {checksum}) == 4


@pytest.mark.parametrize(
    ("samples", "total", "message"),
    [
        (make_samples(2), 3, "3 samples were announced, 2 were given"),
        (make_samples(3), 2, "2 samples with different ids were announced; 'case_2' is one too many"),
        (make_samples(1) * 2, 2, "'case_0' is one too many"),
        ([], 0, "a set has at least one"),
        (make_samples(1, size=(8, 8)), 1, r"image of 'case_0' must be uint8 \(8, 12, 3\); got uint8 \(8, 8,"),
    ],
)
def test_write_set_refuses_and_leaves_nothing(tmp_path, samples, total, message):
    path = tmp_path / "set.h5"
    with pytest.raises(ValueError, match=message):
        write(path, samples, total=total)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_keeps_the_old_set(made):
    before = made.read_bytes()

    def interrupted():
        yield make_samples(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(made, interrupted(), total=5)
    assert made.read_bytes() == before
    assert list(made.parent.iterdir()) == [made]


def test_open_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.h5; make it with `mhsvm"):
        PreparedSet.open(tmp_path / "absent.h5")


def test_open_other_files(made, tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"text\.h5 is not an HDF5 file"):
        PreparedSet.open(text)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with pytest.raises(ValueError, match=r"images\.zip is a zip file, not an HDF5 file; make it with `mhsvm prepare"):
        PreparedSet.open(tmp_path / "images.zip")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(made.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.h5 is truncated or damaged .*make it again"):
        PreparedSet.open(cut)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = [1]
    with pytest.raises(ValueError, match=r"must be a file of format 'mhsvm-set'; its format is None"):
        PreparedSet.open(tmp_path / "foreign.h5")


def test_open_other_schema(made):
    with h5py.File(made, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(ValueError, match=r"schema version 99, this version of mhsvm reads 1; make it again"):
        PreparedSet.open(made)


def writer(path, **changes):
    arguments = {"set_name": "made.h5", "set_checksum": "ab12", "size": (4, 6), "num_classes": 1}
    return PredictionWriter(path, **{**arguments, **changes})


def test_predictions_come_back(tmp_path):
    path = tmp_path / "predictions.h5"
    first = np.random.default_rng(0).integers(0, 256, (2, 4, 6), np.uint8)
    second = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 4, 6)
    with writer(path, attributes={"checkpoint": "best.pt"}) as file:
        file.append(["a", "b"], first)
        file.append(["c"], second)
        assert not path.exists()
    with PredictionSet.open(path) as predictions:
        assert (predictions.ids, len(predictions)) == (("a", "b", "c"), 3)
        assert (predictions.size, predictions.num_classes) == ((4, 6), 1)
        assert (predictions.set_name, predictions.set_checksum) == ("made.h5", "ab12")
        assert predictions.attributes == {"checkpoint": "best.pt"}
        np.testing.assert_array_equal(predictions.probability([1, 0]), first[::-1])
        np.testing.assert_array_equal(predictions.probability([2]), np.rint(second * 255).astype(np.uint8))


def test_predictions_of_classes(tmp_path):
    probability = np.full((2, 3, 4, 6), 85, np.uint8)
    with writer(tmp_path / "p.h5", num_classes=3) as file:
        file.append(["a", "b"], probability)
    with PredictionSet.open(tmp_path / "p.h5") as predictions:
        np.testing.assert_array_equal(predictions.probability(slice(None)), probability)


@pytest.mark.parametrize(
    ("ids", "probability", "message"),
    [
        (["b"], np.zeros((1, 6, 4), np.uint8), r"of 1 ids must have the shape \(1, 4, 6\); got \(1, 6, 4\)"),
        (["b"], np.full((1, 4, 6), 1.5), r"must be in 0\.\.1; got 0\.\.1\.5: apply the sigmoid"),
        (["b"], np.full((1, 4, 6), np.nan), r"must be in 0\.\.1; got nan"),
        (["b", "a"], np.zeros((2, 4, 6)), "predicted once; repeated: a"),
        (["b", "b"], np.zeros((2, 4, 6)), "predicted once; repeated: b"),
    ],
)
def test_bad_predictions_leave_nothing(tmp_path, ids, probability, message):
    def predict():
        with writer(tmp_path / "p.h5") as file:
            file.append(["a"], np.zeros((1, 4, 6), np.uint8))
            file.append(ids, probability)

    with pytest.raises(ValueError, match=message):
        predict()
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_not_a_set(tmp_path):
    with writer(tmp_path / "p.h5") as file:
        file.append(["a"], np.zeros((1, 4, 6), np.uint8))
    with pytest.raises(ValueError, match="of format 'mhsvm-set'; its format is 'mhsvm-predictions'"):
        PreparedSet.open(tmp_path / "p.h5")
