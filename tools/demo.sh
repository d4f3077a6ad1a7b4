#!/usr/bin/env bash
# Trains a policy on the miniature world and compares it with every rival; then compresses the clips named on the command
# line: without any, the real ones beside the repository where they are, else one that it renders and encodes itself.
# Results go to demo/.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p demo
score demo --out demo/miniature --overwrite

clips=("$@")
if [ ${#clips[@]} -eq 0 ]; then
  shopt -s nullglob
  clips=(../shared/video/*.mp4)
fi
if [ ${#clips[@]} -eq 0 ]; then
  python -m score_video.video.synthetic demo/clip.mp4
  clips=(demo/clip.mp4)
fi

for clip in "${clips[@]}"; do
  name=$(basename "${clip%.*}")
  score compress "$clip" --retention 0.1 --out "demo/$name" --overwrite
done
echo
echo "Pictures to look at:"
printf '  %s\n' demo/miniature/accuracy.png demo/miniature/kept.png
for clip in "${clips[@]}"; do
  name=$(basename "${clip%.*}")
  printf '  %s\n' "demo/$name/contact.png" "demo/$name/overlay.mp4"
done
