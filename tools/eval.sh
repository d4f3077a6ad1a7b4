#!/usr/bin/env bash
# Runs a command in an environment with lmms-eval and this package, made on the first call in build/eval (about 3 GB):
#   tools/eval.sh pytest [arguments]      the tests of the chat model and score bench, under the real harness
#   tools/eval.sh lmms-eval [arguments]   the harness itself
# $PYTHON builds the wheel: one with torch, cmake, ninja, scikit-build-core and pybind11.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
root=$PWD
work=$root/build/eval
environment=$work/environment
python=$environment/bin/python

if [ ! -e "$environment/ready" ]; then
  mkdir -p "$work"
  rm -rf "$environment"
  "$PYTHON" -m venv "$environment"
  "$python" -m pip install -q torch==2.13.0+cpu || "$python" -m pip install -q torch==2.13.0
  # no torchcodec: it is built for CUDA torch and does not load beside a CPU torch
  mapfile -t extra < <("$python" tools/requirements.py eval)
  "$python" -m pip install -q "${extra[@]}" lmms-eval==0.7.3 torch==2.13.0 torchvision==0.28.0 "pytest>=8" rich \
    "hypothesis>=6.100" "pytest-benchmark>=5" "transformers==5.24.0" "typer>=0.16"
  touch "$environment/ready"
fi
rm -rf "$work/wheel"
PATH="$(dirname "$PYTHON"):$PATH" SCORE_CUDA=OFF "$PYTHON" -m pip wheel -q --no-build-isolation --no-deps -w "$work/wheel" .
"$python" -m pip install -q --force-reinstall --no-deps "$work"/wheel/*.whl

export PYTHONPATH=$root/tools/torchvision_site HF_HUB_OFFLINE=1
# away from the repository, so that the installed wheel is what every process imports
cd "$work"
case ${1:-} in
  pytest)
    shift
    exec "$python" -P -m pytest -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" \
      "$root/tests/score_video/evaluation_harness" "$@"
    ;;
  lmms-eval)
    shift
    exec "$python" -P -m lmms_eval "$@"
    ;;
  *)
    echo "usage: tools/eval.sh pytest|lmms-eval [arguments]" >&2
    exit 2
    ;;
esac
