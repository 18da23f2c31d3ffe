#!/usr/bin/env bash
# seg-metrics 1.2.8 gives an empty prediction a Hausdorff distance of 0, the best value, and a mask that fills the image one of
# 1.8e+19: its surfaces are contours inside the image, so that a mask has none along the frame. A model that misses every lesion
# has a better mean distance than any other, and one mask that fills its image decides the mean of a set. Expected: no number, or
# the largest one, for an empty mask; a surface along the frame, as in MONAI, medpy and surface-distance.
# Seen with seg-metrics 1.2.8, SimpleITK 2.5.0 and numpy 1.26.4 on Python 3.11, masks of 16 x 16:
#   square and square moved by 2: hd 2, hd95 2
#   empty and square: hd 0, hd95 0
#   whole image and all but its frame: hd 1.8e+19, hd95 1.8e+19
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'seg-metrics==1.2.8' 'SimpleITK==2.5.0' 'numpy==1.26.4'
cat > "$folder/measure.py" <<'PY'
import contextlib
import io
import warnings

import numpy as np
import seg_metrics.seg_metrics as seg_metrics

warnings.simplefilter("ignore")


def square(top, left, side):
    mask = np.zeros((1, 16, 16), np.uint8)
    mask[0, top : top + side, left : left + side] = 1
    return mask


for name, pred, target in (
    ("square and square moved by 2", square(4, 4, 6), square(4, 6, 6)),
    ("empty and square", square(0, 0, 0), square(4, 4, 6)),
    ("whole image and all but its frame", square(0, 0, 16), square(1, 1, 14)),
):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        (found,) = seg_metrics.write_metrics(
            labels=[1], gdth_img=target, pred_img=pred, spacing=np.ones(3), metrics=["hd", "hd95"]
        )
    print(f"{name}: hd {found['hd'][0]:.2g}, hd95 {found['hd95'][0]:.2g}")
PY
"$folder/venv/bin/python" "$folder/measure.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
square and square moved by 2: hd 2, hd95 2
empty and square: hd 0, hd95 0
whole image and all but its frame: hd 1.8e+19, hd95 1.8e+19
EXPECTED
