"""PH2 (Mendonça et al. 2013): 200 pairs in a folder each, without subsets."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "ph2",
    Source(
        # `_roi` folders next to the masks have color classes, IMDxxx_R1_Label2.bmp, which do not match the pattern.
        id_pattern=re.compile(r"IMD\d+"),
        looked_for="PH2Dataset/PH2 Dataset images/IMDxxx/ with IMDxxx_Dermoscopic_Image/IMDxxx.bmp and "
        "IMDxxx_lesion/IMDxxx_lesion.bmp",
    ),
)
