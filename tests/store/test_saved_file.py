"""Errors of files that cannot be read name them."""

import os

import h5py
import numpy as np
import pytest

from mhsvm.store import PreparedSet, Sample, write_set

SIZE = (8, 6)


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "made.h5"
    samples = [Sample(f"case_{i}", np.full((*SIZE, 3), i, np.uint8), np.zeros(SIZE, np.uint8), SIZE) for i in range(3)]
    write_set(path, samples, name="made", size=SIZE, num_classes=1, attributes={}, total=3)
    return path


def test_a_folder(tmp_path):
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.h5 is a folder, not a file"):
        PreparedSet.open(tmp_path / "folder.h5")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_no_permission(made):
    made.chmod(0)
    with pytest.raises(PermissionError, match=r"made\.h5"):
        PreparedSet.open(made)


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(3000)])
def test_a_file_that_only_begins_like_hdf5(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.h5 is (not an HDF5 file|truncated or damaged)"):
        PreparedSet.open(tmp_path / "a.h5")


def test_a_set_without_its_parts(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update({"format": "mhsvm-set", "schema_version": 1})
    with pytest.raises(ValueError, match=r"a\.h5 is truncated or damaged .*make it again with `mhsvm prepare`"):
        PreparedSet.open(tmp_path / "a.h5")


def test_a_file_that_is_being_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros((3, 8, 6, 3), np.uint8)
        file.flush()
        with pytest.raises(ValueError, match=r"a\.h5"):
            PreparedSet.open(tmp_path / "a.h5")


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_set_that_this_process_has_opened_through_h5py(made, mode):
    with h5py.File(made, mode) as other, PreparedSet.open(made) as prepared:
        assert prepared.ids == ("case_0", "case_1", "case_2")
        np.testing.assert_array_equal(prepared.images([2]), other["images"][2:])


def test_a_file_that_shrinks_while_it_is_open(made):
    with PreparedSet.open(made) as prepared:
        os.truncate(made, 2500)
        with pytest.raises(ValueError, match=r"images of case_2 \(row 2\) in .*made\.h5 is truncated or damaged"):
            prepared.images([2])


def link_externally(file, other):
    file["masks"] = h5py.ExternalLink(str(other), "masks")


def link_softly(file, other):
    file["masks"] = h5py.SoftLink("/images")


def store_externally(file, other):
    file.create_dataset("masks", (3, *SIZE), np.uint8, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def map_virtually(file, other):
    layout = h5py.VirtualLayout((3, *SIZE), np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "masks", (3, *SIZE))
    file.create_virtual_dataset("masks", layout)


def link_an_attribute_group(file, other):
    del file["attributes"]
    file["attributes"] = h5py.ExternalLink(str(other), "attributes")


@pytest.mark.parametrize(
    "link", [link_externally, link_softly, store_externally, map_virtually, link_an_attribute_group]
)
def test_content_of_other_files_is_refused(made, tmp_path, link):
    path = tmp_path / "linked.h5"
    with h5py.File(made) as source, h5py.File(path, "w") as file:
        for key in source:
            if key not in ("masks", "checksums"):
                source.copy(key, file)
        file.attrs.update({key: value for key, value in source.attrs.items() if key != "checksums"})
        link(file, made)
    with pytest.raises(ValueError, match=r"/(masks|attributes) of .*linked\.h5 is a link or stored in another file"):
        PreparedSet.open(path)
