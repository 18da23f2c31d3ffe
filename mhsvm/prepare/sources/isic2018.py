"""ISIC 2018 task 1, lesion boundary segmentation (Codella et al. 2019, arXiv 1902.03368): 2594 / 100 / 1000 pairs."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "isic2018",
    Source(
        id_pattern=re.compile(r"ISIC_\d+"),
        looked_for="ISIC2018_Task1-2_{Training,Validation,Test}_Input with ISIC_*.jpg and "
        "ISIC2018_Task1_{Training,Validation,Test}_GroundTruth with ISIC_*_segmentation.png",
        official="ISIC 2018",
    ),
)
