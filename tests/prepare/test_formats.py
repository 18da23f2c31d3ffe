"""Formats by the names of files."""

import pytest

from mhsvm.prepare import formats


@pytest.mark.parametrize("name", ["a.png", "x/A.JPG", "a.jfif", "a.webp", "a.heic", "a.dcm", "a.ome.tif", "a.b.avif"])
def test_formats_that_are_read(name):
    assert formats.is_read(name)
    assert formats.unread_kind(name) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.SVG", ".svg"),
        ("x/a.b.psd", ".psd"),
        ("a.nii.gz", ".nii.gz"),
        ("a.b.nii", ".nii"),
        ("a.cr2", ".cr2"),
        ("a.npy", ".npy"),
        ("a.tar.gz", ".tar.gz"),
        ("a.7z", ".7z"),
    ],
)
def test_images_and_archives_that_are_not_read(name, kind):
    assert formats.unread_kind(name) == kind
    assert not formats.is_read(name)


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.json", "readme.md", "LICENSE", "a.gz", "a.h5", "report.pdf"])
def test_other_files_are_no_images(name):
    assert formats.unread_kind(name) is None
    assert not formats.is_read(name)


def test_no_ending_has_two_meanings():
    endings = [*formats.EXTENSIONS, *formats.UNREAD, *formats.ARCHIVES]
    assert len(endings) == len(set(endings))
