#!/usr/bin/env bash
# Makes the other readers of the study: vision towers of other widths, depths and patches, with token spaces of their
# own, for language models that begin as the shipped reader's.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=evaluation/readers
make_reader() { python -m score_video.miniature.train_reader --start python/score_video/miniature/reader.safetensors "$@"; }

make_reader --out $here/tower-1.safetensors --seed 1 --token-width 32 --tower-width 64 --tower-depth 1
make_reader --out $here/tower-2.safetensors --seed 2 --token-width 160 --tower-width 128
make_reader --out $here/tower-3.safetensors --seed 3 --patch 6 --token-width 96
make_reader --out $here/tower-4.safetensors --seed 5 --patch 3 --token-width 80

# Towers in which patches look at each other, which were trained on whole frames, and on parts of them too.
vit=(--seed 6 --tower-attends --tower-depth 3 --tower-width 64)
make_reader --out $here/vit-whole.safetensors "${vit[@]}"
make_reader --out $here/vit-dropping.safetensors "${vit[@]}" --drop-patches
