"""IMA++, or ISIC MultiAnnot++ (Abhishek et al. 2025, arXiv 2512.21472): 14,967 images, 17,684 masks by 16 raters.

Names of masks are ISIC_0000004_A04_T1_S2_545d08aabae47821f8802550.png: image, rater (A00 to A15), tool (T1 points by
hand, T2 flood fill, T3 automatic), skill (S1 expert, S2 novice) and an id. The rater alone identifies no mask of an
image: 218 times, one has drawn two or more of it, often as S1 and as S2. 2,394 images have masks of several raters, and
for these the consensus by majority (MV) and by STAPLE (ST). The majority is the primary mask here.
"""

import re

from mhsvm.prepare.sources.registry import GroupTable, Source, register_source

register_source(
    "imaplusplus",
    Source(
        id_pattern=re.compile(r"ISIC_\d{7}"),
        looked_for="segs.zip with ISIC_*_A00_T1_S1_*.png and ISIC_*_MV_MV_MV_MV.png, images ISIC_*.jpg from the ISIC "
        "Archive, img_metadata.csv, and train.csv, val.csv and test.csv",
        official="IMA++",
        rater_pattern=re.compile(
            r"(?P<id>ISIC_\d{7})_(?:(?P<rater>A\d\d)_(?P<tool>T\d)_(?P<skill>S\d)(?:_[0-9a-f]+)?|MV(?:_MV)+)"
        ),
        unused_pattern=re.compile(r"ISIC_\d{7}_ST(?:_ST)+"),
        unused_kind="consensus masks by STAPLE, which a test computes from those of the raters",
        group_table=GroupTable(
            ("img_metadata.csv", "IMAplusplus_img_metadata.csv"),
            id_column="isic_id",
            # a lesion has one patient
            group_column=("patient_id", "lesion_id"),
            lists_others=True,
            is_expected=True,
        ),
        has_subsets=False,
        subset_files={"train": "train.csv", "val": "val.csv", "test": "test.csv"},
    ),
)
