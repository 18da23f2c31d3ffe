"""ISIC 2017 part 1, lesion segmentation (Codella et al. 2018, arXiv 1710.05006): 2000 / 150 / 600 pairs."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "isic2017",
    Source(
        id_pattern=re.compile(r"ISIC_\d+"),
        looked_for="ISIC-2017_{Training,Validation,Test_v2}_Data with ISIC_*.jpg and "
        "ISIC-2017_{Training,Validation,Test_v2}_Part1_GroundTruth with ISIC_*_segmentation.png",
        official="ISIC 2017",
    ),
)
