"""Content that differs from what was written is refused; files without checksums are still read."""

import io

import h5py
import numpy as np
import pytest

from mhsvm.store import PredictionSet, PredictionWriter, PreparedSet, Sample, write_set
from mhsvm.store.checksums import reserve_end, verify_end, write_end

SIZE = (16, 12)


@pytest.fixture
def made(tmp_path):
    generator = np.random.default_rng(0)
    samples = [
        Sample(
            f"case_{i}",
            generator.integers(0, 256, (*SIZE, 3), np.uint8),
            generator.integers(0, 256, SIZE, np.uint8),
            (100, 200),
        )
        for i in range(4)
    ]
    path = tmp_path / "made.h5"
    write_set(path, samples, name="made", size=SIZE, num_classes=1, attributes={"version": "1"}, total=4)
    return path


def change(path, place, num=1):
    content = bytearray(path.read_bytes())
    for i in range(place, place + num):
        content[i] ^= 0xFF
    path.write_bytes(content)


def place_of_row(path, key, row):
    with h5py.File(path) as file:
        return file[key].id.get_chunk_info(row).byte_offset


@pytest.mark.parametrize("num", [1, 500])
def test_a_changed_image_is_named_and_the_others_are_read(made, num):
    with PreparedSet.open(made) as prepared:
        before = prepared.images([0, 1, 3]), prepared.masks(slice(None))
    change(made, place_of_row(made, "images", 2) + 40, num)
    with PreparedSet.open(made) as prepared:
        np.testing.assert_array_equal(prepared.images([0, 1, 3]), before[0])
        np.testing.assert_array_equal(prepared.masks(slice(None)), before[1])
        with pytest.raises(ValueError, match=r"images of case_2 \(row 2\) in .*made\.h5 is truncated or damaged"):
            prepared.images(slice(None))


def test_a_changed_mask_is_named(made):
    change(made, place_of_row(made, "masks", 1) + 5)
    with PreparedSet.open(made) as prepared, pytest.raises(ValueError, match=r"masks of case_1 .*`mhsvm prepare`"):
        prepared.masks([1])


def test_rows_that_changed_places_are_noticed(made):
    places = [place_of_row(made, "images", row) for row in (0, 1)]
    content, length = bytearray(made.read_bytes()), SIZE[0] * SIZE[1] * 3
    first, second = (bytes(content[place : place + length]) for place in places)
    content[places[0] : places[0] + length], content[places[1] : places[1] + length] = second, first
    made.write_bytes(content)
    with PreparedSet.open(made) as prepared, pytest.raises(ValueError, match="images of case_0"):
        prepared.images([0])


@pytest.mark.parametrize("text", [b"case_3", b"original_sizes", b"mhsvm-set", b"num_classes", b"checksums", b"crc32"])
def test_changed_texts_names_and_attributes_are_refused_at_once(made, text):
    change(made, made.read_bytes().rindex(text))
    with pytest.raises(ValueError, match=r"made\.h5 is truncated or damaged .*make it again with `mhsvm prepare`"):
        PreparedSet.open(made)


def test_a_file_that_was_cut_or_continued_is_refused(made):
    content = made.read_bytes()
    for num in (1, 10, 30, 100, 1000, len(content) // 2):
        made.write_bytes(content[:-num])
        with pytest.raises(ValueError, match=r"made\.h5 is truncated or damaged"):
            PreparedSet.open(made)
    made.write_bytes(content + b"more")
    with pytest.raises(ValueError, match="does not end with its checksum"):
        PreparedSet.open(made)


def test_files_without_checksums_are_read(made, tmp_path):
    with PreparedSet.open(made) as prepared:
        expected = prepared.ids, prepared.images(slice(None)), prepared.masks(slice(None))
    old = tmp_path / "old.h5"
    with h5py.File(made) as source, h5py.File(old, "w") as file:
        for key in source:
            if key == "masks":
                # the filter of older versions
                file.create_dataset(key, data=source[key], chunks=(1, *SIZE), compression="lzf")
            elif key != "checksums":
                source.copy(key, file)
        file.attrs.update({key: value for key, value in source.attrs.items() if key != "checksums"})
    with PreparedSet.open(old) as prepared:
        assert prepared.ids == expected[0]
        np.testing.assert_array_equal(prepared.images(slice(None)), expected[1])
        np.testing.assert_array_equal(prepared.masks([3, 0]), expected[2][[3, 0]])


def test_predictions_in_memory_have_checksums_too():
    buffer = io.BytesIO()
    with PredictionWriter(buffer, set_name="a.h5", set_checksum="ab", size=SIZE, num_classes=1) as writer:
        writer.append(["a"], np.full((1, *SIZE), 7, np.uint8))
    content = buffer.getvalue()
    with PredictionSet.open(content) as predictions:
        assert predictions.probability([0]).tolist() == np.full((1, *SIZE), 7).tolist()
    place = content.index(b"set_checksum")
    with pytest.raises(ValueError, match="the buffer is truncated or damaged"):
        PredictionSet.open(content[:place] + b"S" + content[place + 1 :])


def test_the_end_holds_the_places_of_rows_and_covers_the_rest(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=np.arange(40, dtype=np.uint8).reshape(5, 8), chunks=(1, 8))
        flags, *stretches = reserve_end(file, ["rows"]).tolist()
        end = file["checksums/file"]
        place = end.id.get_offset(), end.nbytes
    # HDF5 has nothing after the dataset, so that the file stays as it is when it is opened for writing
    assert sum(place) == path.stat().st_size
    assert (flags, sum(length for _, length in stretches)) == ([20, 4], 40)
    with path.open("r+b") as file:
        assert not verify_end(file)
        write_end(file, np.array([flags, *stretches], "<u8"))
        assert verify_end(file)
    content = path.read_bytes()
    within = {place for start, length in (flags, *stretches) for place in range(start, start + length)}
    for place in range(0, len(content) - 12, 3):
        damaged = bytearray(content)
        damaged[place] ^= 4
        if place in within:
            assert verify_end(io.BytesIO(damaged))
        else:
            with pytest.raises(ValueError, match="do not match their checksum"):
                verify_end(io.BytesIO(damaged))


def test_a_set_that_was_opened_for_writing_is_as_before(made):
    before = made.read_bytes()
    with h5py.File(made, "a") as file:
        assert file.attrs["name"] == "made"
    assert made.read_bytes() == before
    with h5py.File(made, "a") as file:
        file["ids"][0] = "other"
    with pytest.raises(ValueError, match="was changed|do not match their checksum"):
        PreparedSet.open(made)


def test_only_filters_that_every_hdf5_reader_has(made, tmp_path):
    files = [made, tmp_path / "p.h5"]
    with PredictionWriter(files[1], set_name="a", set_checksum="b", size=SIZE, num_classes=1) as writer:
        writer.append(["a"], np.zeros((1, *SIZE), np.uint8))
    for path in files:
        with h5py.File(path) as file:
            filters = set()
            file.visititems(lambda name, item: filters.update(getattr(item, "_filters", {})))  # noqa: B023
            assert filters == {"gzip"}
