#!/usr/bin/env bash
# The acceptance tests of model families on the oldest transformers that pyproject.toml allows, or on VERSIONS="5.20.0 ...",
# beside everything else as $PYTHON's environment has it. Results: one line each on stdout.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
OLDEST=$(sed -n 's/^  "transformers>=\([0-9.]*\)",$/\1.0/p' pyproject.toml)
VERSIONS=${VERSIONS:-$OLDEST}
tests=(test_model_registry.py test_exactness.py test_hybrids.py test_prompt.py)

failed=0
for version in $VERSIONS; do
  site=$PWD/build/transformers-$version # in front of the environment's own
  if [ ! -e "$site/ready" ]; then
    "$PYTHON" -m pip install -q --no-deps --upgrade --target "$site" "transformers==$version"
    touch "$site/ready"
  fi
  if PYTHONPATH=$site "$PYTHON" -m pytest -q -p no:cacheprovider "${tests[@]/#/tests/score_video/mllm/}"; then
    echo "transformers $version: passed"
  else
    echo "transformers $version: FAILED"
    failed=1
  fi
done
exit $failed
