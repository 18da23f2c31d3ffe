"""ISIC 2016 part 1, lesion segmentation (Gutman et al. 2016, arXiv 1605.01397): 900 / 379 pairs to train and test."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "isic2016",
    Source(
        id_pattern=re.compile(r"ISIC_\d+"),
        looked_for="ISBI2016_ISIC_Part1_{Training,Test}_Data with ISIC_*.jpg and "
        "ISBI2016_ISIC_Part1_{Training,Test}_GroundTruth with ISIC_*_Segmentation.png",
        official="ISIC 2016",
    ),
)
