#!/usr/bin/env bash
# nvcc without a CUDA toolkit: puts PyPI's packages of it into build/nvcc, with $PYTHON's pip, and prints the folder that
# belongs on PATH:   PATH="$(tools/nvcc.sh):$PATH" make cuda
set -euo pipefail
cd "$(dirname "$0")/.."
toolkit=$PWD/build/nvcc/nvidia/cu13

if [ ! -e build/nvcc/ready ]; then
  rm -rf build/nvcc
  mkdir -p build/nvcc
  "${PYTHON:-python3}" tools/requirements.py nvcc > build/nvcc/requirements.txt
  "${PYTHON:-python3}" -m pip --disable-pip-version-check install -q --target build/nvcc -r build/nvcc/requirements.txt >&2
  ln -s lib "$toolkit/lib64" # where nvcc looks for its run-time library
  ln -s libcudart.so.13 "$toolkit/lib/libcudart.so" # what CMake knows a toolkit by
  touch build/nvcc/ready
fi
echo "$toolkit/bin"
