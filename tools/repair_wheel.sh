#!/usr/bin/env bash
# Names a wheel for the oldest glibc that its symbols allow: tools/repair_wheel.sh WHEEL FOLDER. The libraries of torch stay
# out of it: those of the torch that it is installed beside are used. Needs auditwheel and patchelf.
set -euo pipefail
auditwheel repair --exclude "libtorch*.so*" --exclude "libc10*.so*" --wheel-dir "$2" "$1"
