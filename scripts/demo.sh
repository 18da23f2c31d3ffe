#!/usr/bin/env bash
# The main job on a small scale: draw a data set, prepare it, train, test, segment some images, and
# make a page of it all. CPU only.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf data/demo data/demo.h5 results/demo

show() { printf '\n$ %s\n' "$*"; "$@"; }
show mhsvm synthesize --layout isic2017 --num 160 --seed 1 --size 128 --out data/demo
show python scripts/prepare.py isic2017 --source data/demo --out data/demo.h5 --size 128
show python train.py --config configs/demo.yaml
show python test.py --d demo --p results/demo/checkpoints/best.pt
show mhsvm predict --p results/demo/checkpoints/best.pt --source data/demo/ISIC-2017_Test_v2_Data --out results/demo/predictions
show mhsvm report results/demo

echo
echo "open $(echo results/demo/tests/*/report.html) in a browser; overlays are in results/demo/predictions/"
