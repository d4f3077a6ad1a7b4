# Sourced by tools that run this package's wheel in an environment of its own, build/$name/environment: vllm.sh, eval.sh.
# The repository's root is the current folder. $PYTHON builds the wheel: one with torch, cmake, ninja, scikit-build-core
# and pybind11.
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
root=$PWD
work=$root/build/$name
environment=$work/environment
python=$environment/bin/python

# An empty environment, where there is none that was finished; whoever fills it makes the file "ready" in it.
new_environment() {
  mkdir -p "$work"
  rm -rf "$environment"
  "$PYTHON" -m venv "$environment"
}

# The wheel, built anew; then away from the repository, so that it is what every process imports.
install_wheel() {
  rm -rf "$work/wheel"
  PATH="$(dirname "$PYTHON"):$PATH" SCORE_CUDA=OFF "$PYTHON" -m pip wheel -q --no-build-isolation --no-deps -w "$work/wheel" .
  "$python" -m pip install -q --force-reinstall --no-deps "$work"/wheel/*.whl
  export PYTHONPATH=$root/tools/torchvision_site
  cd "$work"
}

# The tests in a folder of tests/score_video, with more of pytest's arguments.
run_tests() {
  local folder=$1
  shift
  exec "$python" -P -m pytest -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" \
    "$root/tests/score_video/$folder" "$@"
}
