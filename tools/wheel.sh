#!/usr/bin/env bash
# Wheels as .github/workflows/wheels.yml makes them, without containers, in dist/: one for each Python named (else $PYTHON,
# else python3), as in tools/wheel.sh python3.11 python3.12. Each is built against, and tried beside, torch alone, in an
# environment made on the first call in build/wheels: $TORCH lists what to install, the first that pip has.
# auditwheel names the wheel for the oldest glibc that its symbols allow, which is a matter of this machine's compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/wheels
TORCH=${TORCH:-torch==2.13.0+cpu torch==2.13.0}
export SCORE_CUDA=${SCORE_CUDA:-OFF} PIP_DISABLE_PIP_VERSION_CHECK=1
[ $# -gt 0 ] || set -- "${PYTHON:-python3}"

find_python() { # NAME -> one that runs; under pyenv a name may stand for an interpreter that is not switched on
  if "$1" -c "" 2> /dev/null; then echo "$1" && return; fi
  local installed
  for installed in "$(pyenv root 2> /dev/null)"/versions/*/bin/"$1"; do
    if "$installed" -c "" 2> /dev/null; then echo "$installed" && return; fi
  done
  echo "error: wheel.sh: no interpreter $1 was found here" >&2
  return 1
}

install_torch() { # PYTHON
  local requirement
  for requirement in $TORCH; do
    "$1" -m pip install -q "$requirement" && return
  done
  return 1
}

if [ ! -e "$work/tools/ready" ]; then
  rm -rf "$work/tools"
  "$(find_python "$1")" -m venv "$work/tools"
  "$work/tools/bin/python" tools/requirements.py wheel > "$work/tools/requirements.txt"
  "$work/tools/bin/python" -m pip install -q -r "$work/tools/requirements.txt"
  touch "$work/tools/ready"
fi

for name in "$@"; do
  interpreter=$(find_python "$name")
  tag=$("$interpreter" -c "import sys; print('cp%d%d' % sys.version_info[:2])")
  environment=$work/$tag
  python=$environment/bin/python
  if [ ! -e "$environment/ready" ]; then
    rm -rf "$environment"
    "$interpreter" -m venv "$environment"
    install_torch "$python"
    touch "$environment/ready"
  fi
  rm -rf "$work/built" "dist/"score_video-*-"$tag"-*.whl
  "$python" -m pip wheel -q --no-deps --wheel-dir "$work/built" .
  PATH="$work/tools/bin:$PATH" tools/repair_wheel.sh "$work"/built/*.whl dist
  "$python" -m pip install -q --no-deps --force-reinstall "dist/"score_video-*-"$tag"-*.whl
  (cd / && "$python" -P "$root/tools/check_wheel.py") # away from the sources: the installed package is imported
done
