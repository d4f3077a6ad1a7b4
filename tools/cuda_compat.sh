#!/usr/bin/env bash
# Compiles every CUDA kernel in ways that the build itself does not, and runs nothing (`make cuda-compat`):
#
#   nvcc         on PATH, for each architecture from sm_75 to sm_121 that it knows
#   CUB 12.5     nvcc on PATH with the CUB of CUDA 12.5, from PyPI's wheels: those of 12.4 lack some of its headers
#   clang        for sm_75 and sm_90, with that CUB and the other headers and the assembler of CUDA 12.4: a second front
#                end. clang++ 19 on PATH, or Debian's packages, unpacked under build/ (nothing is installed)
#
# What cannot be had here is said, and skipped. Takes minutes: it is not part of CI.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$PWD/build/cuda-compat
flags=(-std=c++20 -O2 -Icsrc/include -Icsrc -Icsrc/cuda)
sources=(csrc/cuda/*.cu)
failed=()
mkdir -p "$work"

# each NAME COMMAND...: the command with every source; a line for it, and what the compiler said where it failed.
each() {
  local name=$1 source wrong=0
  shift
  for source in "${sources[@]}"; do
    "$@" "$source" -o "$work/object" > "$work/said" 2>&1 || { wrong=1; echo "$source:"; tail -n 20 "$work/said"; }
  done
  rm -f "$work/object"
  [ $wrong -eq 0 ] && echo "$name: ${#sources[@]} files compile" || { echo "$name: FAILED"; failed+=("$name"); }
}

skip() { echo "$1: skipped, $2"; }

wheels() { # CUDA 12.4's headers and assembler and CUDA 12.5's CUB, once
  [ -e "$work/ready" ] && return
  rm -rf "$work/wheels" "$work/cuda"
  "$python" -m pip --disable-pip-version-check install -q --no-deps --target "$work/wheels" \
    nvidia-cuda-nvcc-cu12==12.4.131 nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-cccl-cu12==12.5.39 \
    nvidia-curand-cu12==10.3.5.147 > "$work/pip.log" 2>&1 || return 1
  mkdir -p "$work/cuda"
  for part in "$work"/wheels/nvidia/*/; do cp -r "$part". "$work/cuda/"; done
  echo 'CUDA Version 12.4.131' > "$work/cuda/version.txt" # how clang knows the version
  touch "$work/ready"
}

find_clang() { # prints a clang++ of version 19
  command -v clang++-19 && return
  local root=$work/clang packages=(clang-19 libclang-cpp19 libllvm19 libclang-common-19-dev libclang1-19)
  if [ ! -e "$root/ready" ]; then
    mkdir -p "$root"
    (cd "$root" && apt-get download "${packages[@]}" > apt.log 2>&1) || return 1
    for package in "$root"/*.deb; do dpkg -x "$package" "$root" || return 1; done
    touch "$root/ready"
  fi
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/llvm-19/lib" \
    "$root/usr/lib/llvm-19/bin/clang++" > "$root/clang++"
  chmod +x "$root/clang++"
  "$root/clang++" --version > /dev/null 2>&1 && echo "$root/clang++"
}

nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then
  skip nvcc "there is none on PATH (tools/nvcc.sh gets PyPI's)"
else
  known=$("$nvcc" --list-gpu-code)
  for number in 75 80 86 87 88 89 90 100 103 110 120 121; do
    if ! grep -qx "sm_$number" <<< "$known"; then skip "sm_$number" "this nvcc does not know it"; continue; fi
    [ -z "${SM:-}" ] || [[ " $SM " == *" $number "* ]] || continue
    each "nvcc, sm_$number" "$nvcc" "${flags[@]}" -arch="sm_$number" -c
  done
fi

if ! wheels; then
  skip "CUB 12.5 and clang" "PyPI's wheels cannot be had: $(tail -n 1 "$work/pip.log")"
else
  if [ -n "$nvcc" ]; then
    mkdir -p "$work/cub"
    for folder in cub thrust cuda nv; do ln -sfn "$work/cuda/include/$folder" "$work/cub/$folder"; done
    each "nvcc with CUB 12.5, sm_90" "$nvcc" "${flags[@]}" -I"$work/cub" -arch=sm_90 -c
  fi
  if clang=$(find_clang); then
    for number in 75 90; do
      each "clang, sm_$number" "$clang" -x cuda "${flags[@]}" --cuda-path="$work/cuda" --cuda-gpu-arch="sm_$number" \
        --cuda-device-only -Wall -Wextra -Wno-unknown-cuda-version -c
    done
  else
    skip clang "neither clang++-19 on PATH nor Debian's packages of it"
  fi
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
