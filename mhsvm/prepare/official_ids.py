"""The ids of public sets, recognized by a digest: the years of ISIC have ids in common, but no two lists are equal.

The lists are those of the official archives, as the authors of IMA++ publish them (github.com/sfu-mial/IMAplusplus, in
dataset_analysis/data_files).
"""

import hashlib
from collections.abc import Collection

# Start of the sha256 over the sorted ids, joined by line feeds; for every union of the subsets of a year.
_SETS = {
    "5a243b3756025630": "ISIC 2016",  # train, 900 ids
    "0a83a3432ccf9e0e": "ISIC 2016",  # test, 379 ids
    "438f19d2513a27af": "ISIC 2016",  # train+test, 1,279 ids
    "3beb9655e6718b31": "ISIC 2017",  # train, 2,000 ids
    "b613df27e71f83bc": "ISIC 2017",  # val, 150 ids
    "8e7a85c979aef059": "ISIC 2017",  # test, 600 ids
    "b5335e95606e5db8": "ISIC 2017",  # train+val, 2,150 ids
    "19fdf50cec309c6a": "ISIC 2017",  # train+test, 2,600 ids
    "088faed81db2f0ed": "ISIC 2017",  # val+test, 750 ids
    "e2c9a1cb46db4f88": "ISIC 2017",  # train+val+test, 2,750 ids
    "b67ac10bc80b3201": "ISIC 2018",  # train, 2,594 ids
    "a1ba70239281e07d": "ISIC 2018",  # val, 100 ids
    "4f65fc694bcbd7c3": "ISIC 2018",  # test, 1,000 ids
    "13d7b0e33b8cc59e": "ISIC 2018",  # train+val, 2,694 ids
    "35dbdfc26d45d786": "ISIC 2018",  # train+test, 3,594 ids
    "eb7c459b3bedcdf1": "ISIC 2018",  # val+test, 1,100 ids
    "db46df1a074910b5": "ISIC 2018",  # train+val+test, 3,694 ids
    "ede6dbf20cbd91d5": "IMA++",  # all, 14,967 ids
}


def set_of_ids(ids: Collection[str]) -> str | None:
    """The public set with exactly these ids in one or more of its subsets, such as "ISIC 2017"; None if none has."""
    return _SETS.get(hashlib.sha256("\n".join(sorted(ids)).encode("utf-8", "surrogateescape")).hexdigest()[:16])
