import re

import numpy as np
import pytest

from mhsvm.data.splits import make_split
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.prepare.sets import open_set
from mhsvm.prepare.sources import GroupTable, Source
from mhsvm.prepare.sources.registry import SOURCES
from mhsvm.store import PreparedSet

IDS = ("a1", "a2", "b1", "c1")


@pytest.fixture
def own(lay_out, picture, lesion):
    """Lay out a set of four images with further files."""

    def make(**tables):
        files = {f"images/{id_}.png": picture(seed) for seed, id_ in enumerate(IDS)}
        files |= {f"masks/{id_}.png": lesion(seed) for seed, id_ in enumerate(IDS)}
        return lay_out({**files, **{f"{name}.csv": text.encode() for name, text in tables.items()}})

    return make


def groups_of(source, folder, tmp_path):
    prepare_set(source, [folder], tmp_path / "set.h5", size=16, overwrite=True)
    with PreparedSet.open(tmp_path / "set.h5") as prepared:
        return dict(zip(prepared.ids, prepared.groups, strict=True))


def test_a_table_gives_groups(own, tmp_path):
    folder = own(groups="id,site,group\na1,arm,anna\na2,leg, anna \nb1,arm,\n")
    assert groups_of("folder", folder, tmp_path) == {"a1": "anna", "a2": "anna", "b1": "", "c1": ""}


def test_without_a_table_there_are_no_groups(own, tmp_path):
    assert set(groups_of("folder", own(), tmp_path).values()) == {""}


def test_a_pattern_gives_groups_and_a_table_overrides_them(own, tmp_path, registered):
    pattern = {"id_pattern": re.compile(r"\w\d"), "looked_for": "x", "group_pattern": re.compile(r"^([ab])")}
    registered(SOURCES, "letters", Source(**pattern))
    folder = own(groups="id,group\nb1,bert\n")
    assert groups_of("letters", folder, tmp_path) == {"a1": "a", "a2": "a", "b1": "bert", "c1": ""}


def test_a_table_of_the_publisher_may_list_other_images(own, tmp_path, registered):
    table = GroupTable("metadata.csv", id_column="isic_id", group_column="lesion_id", lists_others=True)
    registered(SOURCES, "published", Source(id_pattern=re.compile(r"\w\d"), looked_for="x", group_table=table))
    folder = own(metadata="isic_id,lesion_id\na1,L1\nz9,L1\nb1,L1\n")
    assert groups_of("published", folder, tmp_path) == {"a1": "L1", "a2": "", "b1": "L1", "c1": ""}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,patient\na1,anna\n", r"groups\.csv: it has no column group"),
        ("id,group\na1,anna\nz9,anna\n", r"groups\.csv, line 3: there is no image 'z9'"),
        ("id,group\na1,anna\na1,bert\n", r"groups\.csv, line 3: a1 has group 'bert' and group 'anna'"),
        ("id,group\na1\n", r"groups\.csv, line 2: 1 cells, the line of names has 2"),
        ("id,group\n,anna\n", r"groups\.csv, line 2: expected an id and its group"),
        ("", r"groups\.csv: it has no column group and no column id"),
    ],
)
def test_bad_tables_are_named(own, tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        groups_of("folder", own(groups=table), tmp_path)


def test_a_table_that_is_no_text_is_named(own, tmp_path):
    folder = own()
    (folder / "groups.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        ValueError, match=r"table of groups that cannot be read: 1\n.*groups\.csv, line 1, is not UTF-8 text"
    ):
        groups_of("folder", folder, tmp_path)


def test_a_folder_that_gets_a_table_is_prepared_again(own):
    folder = own()
    with open_set(folder, size=16) as prepared:
        assert prepared.groups == ("", "", "", "")
        checksum = prepared.checksum
    (folder / "groups.csv").write_text("id,group\na1,anna\nc1,anna\n")
    with open_set(folder, size=16) as prepared:
        assert prepared.groups == ("anna", "", "", "anna")
        assert prepared.checksum == checksum


def test_folds_keep_groups():
    ids = [f"{number:02d}" for number in range(30)]
    groups = [f"patient{number % 7}" if number % 3 else "" for number in range(30)]
    parts = make_split("kfold-5-1-0", ids=ids, subsets=[""] * 30, groups=groups, dataset="own").parts
    for group in set(groups) - {""}:
        assert len({parts[id_] for id_, own in zip(ids, groups, strict=True) if own == group}) == 1
    assert np.unique(list(parts.values())).tolist() == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("file_name", "table"),
    [
        ("groups.csv", "\ufeffid,group\r\nla\u0308sion,anna\r\nnevus,anna\r\n"),
        ("groups.csv", "id;site;group\nl\u00e4sion;arm, left;anna\nnevus;arm;anna\n"),
        ("groups.csv", "id\tgroup\nl\u00e4sion\tanna\nnevus\tanna"),
        ("Groups.CSV", "ID, Group\nl\u00e4sion.png,anna\nnevus.PNG,anna\n"),
    ],
)
def test_tables_of_spreadsheets_and_accents_are_read(lay_out, picture, lesion, tmp_path, file_name, table):
    # macOS writes an accent as a character of its own
    names = ("la\u0308sion", "nevus", "v1.png")
    files = {f"images/{name}.png": picture(seed) for seed, name in enumerate(names)}
    files |= {f"masks/{name}.png": lesion(seed) for seed, name in enumerate(names)}
    folder = lay_out({**files, file_name: table.encode()})
    assert groups_of("folder", folder, tmp_path) == {"l\u00e4sion": "anna", "nevus": "anna", "v1.png": ""}
