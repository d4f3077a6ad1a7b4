#!/usr/bin/env bash
# Runs a command in an environment with lmms-eval and this package, made on the first call in build/eval (about 3 GB):
#   tools/eval.sh pytest [arguments]      the tests of the chat model and score bench, under the real harness
#   tools/eval.sh lmms-eval [arguments]   the harness itself
set -euo pipefail
cd "$(dirname "$0")/.."
name=eval
source tools/environment.sh
export HF_HUB_OFFLINE=1

if [ ! -e "$environment/ready" ]; then
  new_environment
  "$python" -m pip install -q torch==2.13.0+cpu || "$python" -m pip install -q torch==2.13.0
  # no torchcodec: it is built for CUDA torch and does not load beside a CPU torch
  mapfile -t extra < <("$python" tools/requirements.py eval)
  "$python" -m pip install -q "${extra[@]}" lmms-eval==0.7.3 torch==2.13.0 torchvision==0.28.0 "pytest>=8" rich \
    "hypothesis>=6.100" "pytest-benchmark>=5" "transformers==5.24.0" "typer>=0.16"
  touch "$environment/ready"
fi
install_wheel

case ${1:-} in
  pytest)
    run_tests evaluation_harness "${@:2}"
    ;;
  lmms-eval)
    shift
    exec "$python" -P -m lmms_eval "$@"
    ;;
  *)
    echo "usage: tools/eval.sh pytest|lmms-eval [arguments]" >&2
    exit 2
    ;;
esac
