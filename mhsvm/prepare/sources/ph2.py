"""PH2 (Mendonça et al. 2013): 200 pairs, without subsets; the official tree, or the forms in which it is passed on.

On Kaggle and in the record on Zenodo the images are X_1.bmp to X_200.bmp and the masks Y_1.bmp to Y_200.bmp. The record
holds all of them twice, in trainx and trainy and below ph2_dataset.
"""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "ph2",
    Source(
        # `_roi` folders next to the masks have color classes, IMDxxx_R1_Label2.bmp, which do not match the pattern.
        id_pattern=re.compile(r"IMD\d+|\d{1,3}"),
        looked_for="PH2Dataset/PH2 Dataset images/IMDxxx/ with IMDxxx_Dermoscopic_Image/IMDxxx.bmp and "
        "IMDxxx_lesion/IMDxxx_lesion.bmp, or folders of images and labels with IMDxxx.bmp, or trainx/X_1.bmp and "
        "trainy/Y_1.bmp",
        official="PH2",
        path_pattern=re.compile(r"(?:^|/)(?:IMD\d|train[xy](?:\.zip)?/[xy]_\d)[^/]*$", re.IGNORECASE),
        has_subsets=False,
    ),
)
