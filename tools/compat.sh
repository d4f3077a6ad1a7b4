#!/usr/bin/env bash
# One binary, many torches: builds the wheel once, against the torch of $PYTHON, and runs the op tests with it under
# other torch releases, each in an environment of its own. Downloads those releases (gigabytes where pip knows only
# builds with CUDA). VERSIONS="2.12.1" chooses others. Results: one line each on stdout.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
VERSIONS=${VERSIONS:-"2.10.0 2.11.0 2.15.0"}

work=$PWD/build/compat
rm -rf "$work/wheel"
mkdir -p "$work"
tests=$(mktemp -d) # away from the repository, so that the installed wheel is what is imported
trap 'rm -rf "$tests"' EXIT
cp -r tests/score_ext pyproject.toml "$tests"
cuda=OFF
if command -v nvcc > /dev/null; then cuda=ON; fi
SCORE_CUDA=$cuda "$PYTHON" -m pip wheel -q --no-build-isolation --no-deps -w "$work/wheel" .

failed=0
for version in $VERSIONS; do
  environment=$work/torch-$version
  if [ ! -e "$environment/ready" ]; then
    "$PYTHON" -m venv "$environment"
    "$environment/bin/python" -m pip install -q "torch==$version" numpy pytest pytest-benchmark hypothesis
    touch "$environment/ready"
  fi
  "$environment/bin/python" -m pip install -q --force-reinstall --no-deps "$work"/wheel/*.whl
  if (cd "$tests" && "$environment/bin/python" -m score_ext &&
      "$environment/bin/python" -m pytest -p no:cacheprovider score_ext); then
    echo "torch $version: passed"
  else
    echo "torch $version: FAILED"
    failed=1
  fi
done
exit $failed
