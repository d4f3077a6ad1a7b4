#!/usr/bin/env bash
# The tests that rest on equal bits or on tight tolerances, once for each path through torch's kernels, the BLAS and the
# thread pool that this machine has beside the one it takes by itself. The interpreter is $PYTHON (.venv/bin/python);
# options go to pytest. Settings that changed no result on any machine we had (MKL_DEBUG_CPU_TYPE, MKL_CBWR above what
# the processor has, GLIBC_TUNABLES, which libgcc's choice among our own clones does not heed) are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

settings=(
  "OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default" # exp, sums and random numbers of torch without AVX2
  "OMP_NUM_THREADS=2 MKL_CBWR=COMPATIBLE"         # products as on any x86-64; two threads
)
if grep -qw avx512f /proc/cpuinfo 2>/dev/null; then
  settings+=("OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2") # as on AMD before Zen 4
fi
tests=(
  tests/score_ext/test_invariance.py
  tests/score_ext/test_range.py
  tests/score_ext/test_policy_state.py
  tests/score_video/policy/test_relative_state.py
  tests/score_video/rl/test_resume.py
)

for setting in "${settings[@]}"; do
  echo "== $setting"
  # passive: on a busy machine threads that wait must not take the cores from those that work
  # shellcheck disable=SC2086
  env $setting OMP_WAIT_POLICY=passive "$python" -m pytest -q -x "${tests[@]}" "$@"
done
