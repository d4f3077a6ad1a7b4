#!/usr/bin/env bash
# The CPU kernels on 64-bit Arm, without such a machine: tests/arm/driver.cpp and every kernel are cross-compiled, run
# under qemu-user, and what they print is compared with what they print when compiled for this machine. Needs, by their
# names in Debian, qemu-user and g++-aarch64-linux-gnu; ARM_CXX is another cross-compiler, with options if it needs them.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra arm_cxx <<<"${ARM_CXX:-aarch64-linux-gnu-g++}"
python=${PYTHON:-python3}
for tool in "${arm_cxx[0]}" qemu-aarch64; do
  command -v "$tool" >/dev/null || { echo "arm.sh: needs $tool (Debian: qemu-user, g++-aarch64-linux-gnu)" >&2; exit 1; }
done

# CMakeLists.txt has the same flags, and why. parallel.cpp takes torch's thread pool; the driver has its own.
flags=(-std=c++20 -Wall -Wextra -O3 -ffp-contract=off -fno-trapping-math -fno-math-errno -fopenmp-simd
  -Icsrc/include -Icsrc -Icsrc/cpu)
sources=(tests/arm/driver.cpp)
for source in csrc/cpu/*.cpp; do
  [ "$source" = csrc/cpu/parallel.cpp ] || sources+=("$source")
done

build() { # folder, compiler ...
  local folder=build/arm/$1
  shift
  mkdir -p "$folder"
  rm -f "$folder"/*
  printf '%s\n' "${sources[@]}" |
    xargs -P "$(nproc)" -I{} sh -c 'source=$1; folder=$2; shift 2; exec "$@" -c "$source" -o "$folder/$(basename "$source").o"' \
      sh {} "$folder" "$@" "${flags[@]}"
  "$@" -static "$folder"/*.o -o "$folder/driver"
}

build here "${CXX:-g++}"
build aarch64 "${arm_cxx[@]}"
build/arm/here/driver >build/arm/here.txt
qemu-aarch64 build/arm/aarch64/driver >build/arm/aarch64.txt
"$python" tests/arm/compare.py build/arm/here.txt build/arm/aarch64.txt
