"""Search for images that two parts of a study have in common: equal images and near-duplicates.

`find_duplicates` compares arrays of images, `search_duplicates` prepared sets; `duplicate_groups` keeps near-duplicates
together in a split. `find_leaks` names the kind of each pair, `find_leakage` compares training and test images of a
checkpoint. `write_leaks` writes pairs as a table and as contact sheets.
"""

from mhsvm.leakage.duplicate_file import duplicate_groups, search_duplicates
from mhsvm.leakage.duplicates import DuplicatePair, find_duplicates
from mhsvm.leakage.leaks import Leak, find_leaks, leaks_between
from mhsvm.leakage.report import leakage_content, leakage_lines, leakage_metrics, mask_lines, write_leaks
from mhsvm.leakage.seen_images import Leakage, find_leakage, holds_recorded_ids

__all__ = [
    "DuplicatePair",
    "Leak",
    "Leakage",
    "duplicate_groups",
    "find_duplicates",
    "find_leakage",
    "find_leaks",
    "holds_recorded_ids",
    "leakage_content",
    "leakage_lines",
    "leakage_metrics",
    "leaks_between",
    "mask_lines",
    "search_duplicates",
    "write_leaks",
]
