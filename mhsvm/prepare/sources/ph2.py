"""PH2 (Mendonça et al. 2013): 200 pairs in one folder each, without subsets."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "ph2",
    Source(
        # `_roi` folders beside the masks hold colour classes, IMDxxx_R1_Label2.bmp, which no id matches.
        id_pattern=re.compile(r"IMD\d+"),
        looked_for="PH2Dataset/PH2 Dataset images/IMDxxx/ with IMDxxx_Dermoscopic_Image/IMDxxx.bmp and "
        "IMDxxx_lesion/IMDxxx_lesion.bmp",
    ),
)
