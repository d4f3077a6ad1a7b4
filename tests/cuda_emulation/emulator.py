"""Builds the emulation with g++ and calls the launchers of csrc/cuda in it, with torch tensors on the CPU."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLAGS = [
    *("-std=c++20", "-O1", "-g", "-ffp-contract=off"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=emulated_shared"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas"),
]
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # score::DType


class Input(NamedTuple):
    """An array that starts `misalignment` bytes behind a multiple of 16."""

    tensor: Tensor
    misalignment: int = 0


def build() -> Path:
    """The emulator's executable, built if it is older than anything it is made of."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise FileNotFoundError(compiler)
    sources = [*(ROOT / "csrc/cuda").glob("*.cu"), *HERE.glob("*.cu"), *HERE.glob("*.cpp")]
    headers = [path for folder in (ROOT / "csrc/cuda", ROOT / "csrc/include", HERE) for path in folder.rglob("*.*h")]
    program = ROOT / "build/cuda_emulation/emulator"
    newest = max(path.stat().st_mtime for path in [*sources, *headers])
    if not program.exists() or program.stat().st_mtime < newest:
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        folders = [f"-I{folder}" for folder in (HERE / "include", ROOT / "csrc/include", ROOT / "csrc")]
        subprocess.run([compiler, *FLAGS, *folders, "-x", "c++", *sources, "-o", unfinished], check=True)
        unfinished.rename(program)
    return program


def _name(text: str) -> bytes:
    return struct.pack("=q", len(text)) + text.encode()


def _bytes(tensor: Tensor) -> bytes:
    # Of an empty tensor torch has no view as bytes.
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


class EmulationError(AssertionError):
    """The process ended: the sanitizers, the emulation or the interpreter found something, and this is what it said."""


class Emulator:
    """One process that runs kernels: of the emulator, or of another server of main.cpp with a `command` of its own."""

    def __init__(
        self, command: Sequence[str | Path] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command or [build()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "ASAN_OPTIONS": "detect_leaks=0",
                "UBSAN_OPTIONS": "print_stacktrace=1",
                **(environment or {}),
            },
        )

    def configure(self, resident_blocks: int, backwards: bool, shared_bytes: int = 99 << 10) -> None:
        """How many blocks the device claims to run at once, in which order threads and blocks take turns, and how much
        shared memory a block may ask for."""
        self.call("device", resident_blocks=resident_blocks, backwards=int(backwards), shared_bytes=shared_bytes)

    def close(self) -> None:
        self._process.communicate()

    def call(self, function: str, **arguments: int | float | Tensor | Input) -> int:
        """Calls a launcher with copies of the tensors, writes outputs back and returns the error."""
        request = [_name(function), struct.pack("=q", len(arguments))]
        for name, value in arguments.items():
            request.append(_name(name))
            if isinstance(value, int):
                request.append(b"i" + struct.pack("=q", value))
            elif isinstance(value, float):
                request.append(b"d" + struct.pack("=d", value))
            else:
                tensor, misalignment = value if isinstance(value, Input) else (value, 0)
                data = _bytes(tensor)
                request.append(b"a" + struct.pack("=qq", misalignment, len(data)) + data)
        try:
            self._stdin.write(b"".join(request))
            self._stdin.flush()
            (error,) = struct.unpack("=q", self._read(8))
            for name in sorted(arguments):
                value = arguments[name]
                tensor = value.tensor if isinstance(value, Input) else value
                if isinstance(tensor, Tensor):
                    self._read_back(tensor)
        except (BrokenPipeError, EOFError):
            _, said = self._process.communicate()
            raise EmulationError(f"{function}: {said.decode(errors='replace')}") from None
        return int(error)

    def _read_back(self, tensor: Tensor) -> None:
        (size,) = struct.unpack("=q", self._read(8))
        if size > 0:
            data = torch.frombuffer(bytearray(self._read(size)), dtype=torch.uint8)
            tensor.copy_(data.view(tensor.dtype).view(tensor.shape))

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data
