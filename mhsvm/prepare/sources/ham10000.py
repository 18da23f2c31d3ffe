"""HAM10000 (Tschandl et al. 2018, arXiv 1803.10417) with Tschandl's masks: 10,015 pairs, 7,470 lesions.

The masks are those of Tschandl et al. 2020, doi 10.1038/s41591-020-0942-0. The images are also those of task 3 of ISIC
2018. There are no subsets; the table of metadata has the lesion of each image.
"""

import re

from mhsvm.prepare.sources.registry import GroupTable, Source, register_source

register_source(
    "ham10000",
    Source(
        id_pattern=re.compile(r"ISIC_\d+"),
        looked_for="HAM10000_images_part_{1,2} with ISIC_*.jpg, HAM10000_segmentations_lesion_tschandl with "
        "ISIC_*_segmentation.png, and HAM10000_metadata.csv",
        official="HAM10000",
        group_table=GroupTable(
            # as downloaded, as the publisher's table of text, and without an ending as its page names it
            ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"),
            id_column="image_id",
            group_column="lesion_id",
            lists_others=True,
            is_expected=True,
        ),
        has_subsets=False,
        also_from=("ISIC 2018 task3",),
    ),
)
