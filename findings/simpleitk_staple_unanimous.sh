#!/usr/bin/env bash
# SimpleITK 2.5.7: STAPLE returns NaN in every pixel, without an error, where all raters agree that an image has no lesion, or
# that it is all lesion. The prior is the mean fraction of lesion: 0 or 1, so that each posterior is 0 / 0. Thresholded, NaN is
# background, so that masks that are all lesion have an empty consensus. Expected: the masks themselves, as for other equal
# masks.
# Seen with SimpleITK 2.5.7 and numpy 2.3.5 on Python 3.11, masks of 64 x 64:
#   equal discs: 0 NaN, 317 pixels above 0.5
#   all empty: 4096 NaN, 0 pixels above 0.5
#   all lesion: 4096 NaN, 0 pixels above 0.5
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'SimpleITK==2.5.7' 'numpy==2.3.5'
cat > "$folder/staple.py" <<'PY'
import numpy as np
import SimpleITK as sitk

rows, columns = np.mgrid[:64, :64]
disc = ((rows - 32) ** 2 + (columns - 32) ** 2 <= 100).astype(np.uint8)
empty, full = np.zeros_like(disc), np.ones_like(disc)
for name, masks in {
    "equal discs": [disc] * 3,
    "all empty": [empty] * 3,
    "all lesion": [full] * 3,
}.items():
    staple = sitk.STAPLEImageFilter()
    staple.SetForegroundValue(1.0)
    weight = sitk.GetArrayFromImage(staple.Execute([sitk.GetImageFromArray(mask) for mask in masks]))
    print(f"{name}: {np.isnan(weight).sum()} NaN, {(weight > 0.5).sum()} pixels above 0.5")
PY
"$folder/venv/bin/python" "$folder/staple.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
equal discs: 0 NaN, 317 pixels above 0.5
all empty: 4096 NaN, 0 pixels above 0.5
all lesion: 4096 NaN, 0 pixels above 0.5
EXPECTED
