"""Builds the interpreter, and the CUDA kernels as nvcc makes them: PTX for it, host code linked against it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EMULATION = ROOT / "tests/cuda_emulation"
ARCH = os.environ.get("SCORE_PTX_ARCH", "90")
BUILD = ROOT / f"build/ptx/sm_{ARCH}"
CXX = os.environ.get("CXX", "g++")
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
INCLUDES = [f"-I{folder}" for folder in (HERE / "include", HERE, ROOT / "csrc/include", ROOT / "csrc")]
HOST_FLAGS = ["-std=c++20", "-O2", "-fwrapv", "-Wall", "-Wextra"]
# No machine code: PTX is what is run, and what is left beside the object by --keep.
DEVICE_FLAGS = ["-std=c++20", "-O3", "-gencode", f"arch=compute_{ARCH},code=compute_{ARCH}", "--keep"]


def missing() -> str | None:
    """What is needed and not there."""
    for program in ("nvcc", CXX):
        if shutil.which(program) is None:
            return f"no {program} here: the kernels' PTX cannot be made"
    return None


def _is_current(product: Path, dependencies: Path) -> bool:
    """Whether `product` is newer than all that the compiler read for it."""
    if not product.exists() or not dependencies.exists():
        return False
    names = re.findall(r"(?:\\.|[^\s\\])+", dependencies.read_text().split(":", 1)[1].replace("\\\n", " "))
    built = product.stat().st_mtime
    return all(Path(name).exists() and Path(name).stat().st_mtime <= built for name in names)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two test runs do not build at the same time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(source: Path) -> Path:
    """The object of one source; of a kernel, with NAME.ptx beside it."""
    folder = BUILD / source.stem
    product, dependencies = folder / f"{source.stem}.o", folder / f"{source.stem}.d"
    if not _is_current(product, dependencies):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        unfinished = folder / "unfinished.o"
        if source.suffix == ".cu":
            compiler = ["nvcc", *DEVICE_FLAGS, "--keep-dir", str(folder)]
        elif source not in (HERE / "runtime.cpp", EMULATION / "main.cpp"):
            compiler = [CXX, *HOST_FLAGS]
        else:  # needs CUDA's headers, which nvcc knows where to find
            compiler = ["nvcc", "-std=c++20", "-O2"]
        command = [*compiler, *INCLUDES, "-MD", "-MF", str(dependencies), "-c", str(source), "-o", str(unfinished)]
        subprocess.run(command, check=True)
        for left_over in (*folder.glob("*.ii"), *folder.glob("*.cudafe*"), *folder.glob("*.fatbin*")):
            left_over.unlink()
        unfinished.rename(product)
    return product


def _link(name: str, objects: list[Path]) -> Path:
    program = BUILD / "bin" / name
    program.parent.mkdir(exist_ok=True)
    if not program.exists() or any(path.stat().st_mtime > program.stat().st_mtime for path in objects):
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([CXX, "-o", unfinished, *objects], check=True)
        unfinished.rename(program)
    return program


def _compile_all(sources: list[Path]) -> list[Path]:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(_compile, sources))


def interpreter_sources() -> list[Path]:
    return [*sorted((HERE / "interpreter").glob("*.cpp")), HERE / "settings.cpp"]


def build_module_runner() -> Path:
    """A program that runs hand-written PTX; needs no nvcc."""
    with _alone():
        return _link("run_module", _compile_all([*interpreter_sources(), HERE / "run_module.cpp"]))


def ptx_of(kernel: Path) -> Path:
    return BUILD / kernel.stem / f"{kernel.stem}.ptx"


def build_ptx() -> list[Path]:
    """The PTX of every kernel file."""
    with _alone():
        _compile_all(KERNELS)
    return [ptx_of(kernel) for kernel in KERNELS]


def build_server() -> list[Path]:
    """The command of the server of tests/cuda_emulation/main.cpp, on the interpreter."""
    kernels = [*KERNELS, EMULATION / "faults.cu"]
    sources = [*kernels, *interpreter_sources(), HERE / "runtime.cpp", EMULATION / "main.cpp"]
    with _alone():
        return [_link("server", _compile_all(sources)), *map(ptx_of, kernels)]
