"""A user's own images and masks in two folders, with or without subsets."""

import re

from mhsvm.prepare.sources.registry import Source, register_source

register_source(
    "folder",
    Source(
        id_pattern=re.compile(r".+"),
        looked_for="images/NAME.* and masks/NAME.*, or {train,val,test}/{images,masks}/NAME.*, where a mask may also "
        "be called NAME_segmentation, NAME_mask or NAME_lesion, or NAME.* and NAME_mask.* in one folder; other endings "
        "are given by `mask_suffix`",
        needs_folders=True,
    ),
)
