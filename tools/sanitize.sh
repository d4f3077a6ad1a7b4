#!/usr/bin/env bash
# Builds the CPU library with AddressSanitizer and UndefinedBehaviorSanitizer into build/sanitize and runs the op tests
# against it. The interpreter is $PYTHON (.venv/bin/python); options go to pytest, e.g. tools/sanitize.sh -k fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-.venv/bin/python}
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") # symlinks stay: they are what makes a venv
site=$root/build/sanitize/site
export CXX=${CXX:-g++}

# An environment without the build tools gets them from pip, in isolation.
isolation=--no-build-isolation
"$python" -c "import pybind11, scikit_build_core" 2>/dev/null || isolation=
SCORE_SANITIZE=ON SCORE_CUDA=OFF "$python" -m pip install --quiet $isolation --no-deps --upgrade --target "$site" \
  --config-settings build-dir=build/sanitize/cmake --config-settings install.strip=false .

# Python looks for an editable install before PYTHONPATH. This is run when the interpreter starts, also in the
# processes that tests start, and takes that finder away.
cat >"$site/sitecustomize.py" <<'END'
import sys

finders = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable_")]
sys.meta_path[:] = finders
END

# The sanitizers have to be there before anything else, and libstdc++ with them: they wrap its throwing of exceptions.
libraries=
for name in libasan.so libubsan.so libstdc++.so.6; do
  libraries+=${libraries:+:}$("$CXX" -print-file-name=$name)
done
export PYTHONPATH=$site
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 # Python itself leaks; huge sizes are to raise
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

cd build/sanitize # not where score_ext's sources lie: Python looks in the working directory first
LD_PRELOAD=$libraries "$python" -c "
import importlib.util, pathlib, sys, score_ext
origin = importlib.util.find_spec('score_ext._ops').origin
sys.exit(not all(pathlib.Path(path).is_relative_to('$site') for path in (score_ext.__file__, origin)))
" || { echo "sanitize.sh: another score_ext than the one in $site is imported" >&2; exit 1; }

# --capture=sys: what a sanitizer writes as the process dies must not be held back.
LD_PRELOAD=$libraries exec "$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" "$root/tests/score_ext" \
  -m "not unsanitized" --capture=sys -p no:cacheprovider "$@"
