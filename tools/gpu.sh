#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one, from a bare checkout and without a network:
#
#   tools/gpu.sh [build] [test] [sanitize] [bench] [prefill]     all of them, in this order, where none is named
#
#   build      score_ext for this GPU, into build/gpu/site, against the torch of $PYTHON (python3)
#   test       tests/gpu: agreement with the CPU, graphs, streams, compilation, sizes over 2^31
#   sanitize   compute-sanitizer's memcheck, racecheck and synccheck over every kernel
#   bench      bench.gpu: every op, the policies, and the same in plain and compiled torch
#   prefill    bench.prefill: prefill and time to first token with real models' shapes
#
# A step that fails does not stop the others; what failed is said at the end, and the exit status is 1. After bench the
# results, the other steps' outcomes with them, are in bench/results/gpu-NAME.json and docs/gpu.md, those of prefill in
# prefill-gpu-NAME.json beside it and in docs/prefill.md. Logs are in build/gpu.
# Each step but prefill takes less than ten minutes. bench and prefill that were stopped go on where they were, as long
# as the sources and the machine are the same; for machines that forget, bring build/gpu/measurements.json and
# build/prefill back. A machine without a GPU's toolchain: build/gpu/site can be brought along as well.
# Needs: torch with CUDA, nvcc, cmake, ninja, pybind11, scikit-build-core, pytest, hypothesis, compute-sanitizer; for
# prefill also transformers of pyproject.toml's floor, typer, rich and matplotlib. EXTRA_SITE: a folder of packages that
# the machine lacks or has too old, looked in first.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$PWD/build/gpu
site=$work/site
failed=()

die() {
  echo "gpu.sh: $*" >&2
  exit 1
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(build test sanitize bench prefill)
for step in "${steps[@]}"; do
  case $step in
    build | test | sanitize | bench | prefill) ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) die "there is no step '$step'; there are build, test, sanitize, bench and prefill" ;;
  esac
done

command -v "$python" > /dev/null || die "there is no '$python'; PYTHON names the interpreter"
"$python" -c "import torch" 2> /dev/null || die "$python has no torch"
"$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2> /dev/null ||
  die "no GPU here that the torch of $python can use; nothing was done"

mkdir -p "$work/steps"
# Safe path: the checkout has a score_ext too, without libraries. It must not be what is imported.
export PYTHONPATH=$site${EXTRA_SITE:+:$EXTRA_SITE} PYTHONSAFEPATH=1

# note STEP OUTCOME DETAIL: for the summary and for the results file; names sort in the order of the steps.
note() {
  printf '%s\t%s\t%s\n' "$1" "$2" "${3//$'\t'/ }" > "$work/steps/$1"
  echo "== $1: $2${3:+ ($3)}"
  [ "$2" = passed ] || failed+=("$1")
}

last_line() { grep -v '^[[:space:]]*$' "$1" | tail -n 1; }

# run STEP COMMAND...: shows and keeps what it says; its last line is the detail.
run() {
  local name=$1
  shift
  echo "== $name"
  if "$@" 2>&1 | tee "$work/$name.log"; then note "$name" passed "$(last_line "$work/$name.log")"; else
    note "$name" FAILED "$(last_line "$work/$name.log")"
    return 1
  fi
}

build() {
  local tool module
  for tool in nvcc cmake ninja; do
    command -v "$tool" > /dev/null || { echo "there is no $tool on PATH"; return 1; }
  done
  for module in pybind11 scikit_build_core; do
    "$python" -c "import $module" 2> /dev/null || { echo "$python has no $module"; return 1; }
  done
  rm -rf "$site"
  # What was measured of other sources is not gone on with.
  sources=$(cat CMakeLists.txt csrc/*.* csrc/*/*.* csrc/*/*/*.* score_ext/*.py bench/*/*.py | cksum)
  if [ "$sources" != "$(cat "$work/sources" 2> /dev/null)" ]; then rm -rf build/prefill "$work/measurements.json"; fi
  echo "$sources" > "$work/sources"
  SCORE_CUDA=ON CMAKE_ARGS="-DCMAKE_CUDA_ARCHITECTURES=$("$python" -c '
import torch
print("%d%d" % torch.cuda.get_device_capability())')" \
    "$python" -m pip install --no-index --no-build-isolation --no-deps --target "$site" \
    --config-settings build-dir=build/gpu/cmake . || return 1
  "$python" -c "
import pathlib, sys, score_ext
assert pathlib.Path(score_ext.__file__).is_relative_to('$site'), f'{score_ext.__file__} is imported instead'
assert score_ext.cuda_library_loaded(), 'the CUDA library is not loaded'
print('score_ext', score_ext.__version__, 'for', score_ext.build_info()['cuda_architectures'])"
}

tests() { "$python" -m pytest -o addopts= -q -p no:cacheprovider tests/gpu; }

sanitizer() {
  command -v compute-sanitizer > /dev/null || { echo "there is no compute-sanitizer on PATH"; return 1; }
  # Every tensor an allocation of its own, so that a step outside of it is one outside of an allocation.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "${SANITIZE_SECONDS:-190}" \
    compute-sanitizer --tool "$1" --error-exitcode 86 "$python" tests/gpu/sanitize_case.py
}

# The checkout comes behind the built package: only bench is found there.
from_checkout() { PYTHONPATH=$PYTHONPATH:$PWD "$python" "$@"; }

measure() { from_checkout -m bench.gpu "$work/measurements.json" && echo "measured"; }

prefill() { from_checkout -m bench.prefill; }

for step in "${steps[@]}"; do
  [ "$step" = build ] || [ -d "$site" ] || die "build first"
  case $step in
    build) run 1-build build || break ;;
    test) run 2-test tests ;;
    sanitize) for tool in memcheck racecheck synccheck; do run "3-$tool" sanitizer "$tool"; done ;;
    bench)
      run 4-bench measure
      if [ -e "$work/measurements.json" ]; then
        cat "$work"/steps/* > "$work/steps.tsv"
        "$python" bench/gpu/report.py "$work/measurements.json" "$work/steps.tsv" || failed+=(report)
      fi
      ;;
    prefill) run 5-prefill prefill ;;
  esac
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "gpu.sh: failed: ${failed[*]}; logs are in build/gpu" >&2
  exit 1
fi
echo "gpu.sh: passed: ${steps[*]}"
