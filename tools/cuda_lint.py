"""What the CUDA kernels promise beyond their results, read from what nvcc makes of them (CONTRIBUTING.md):

- kernels that pick the same tokens on every device hold only float arithmetic that rounds in one way;
- the kernels that move rows do it 16 bytes at a time, in PTX and, where cuobjdump is, in machine code;
- registers and spills for sm_90 stay within tools/cuda_registers.txt, which `--write` writes anew.

    tools/cuda_lint.py [--write]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/ptx"))

import ptx_build  # noqa: E402

LIMITS = Path(__file__).with_name("cuda_registers.txt")
# Files whose results equal the CPU's to the bit, and those of them that also compute logarithms, in double.
BIT_EXACT = ("select", "divprune", "gumbel_topk", "sample_bernoulli", "count_sketch")
WITH_LOGARITHMS = ("sample_bernoulli",)
# Kernels that move rows, by how their names begin: what their PTX must match, and what their machine code must contain.
WIDE = {
    "surprise_walk<": (
        (r"ld\.global(\.nc)?(\.\w+::\w+)*\.v4\.[uf]32",),
        ("LDG.E.128",),
    ),
    "gather_rows<uint4": (
        (r"ld\.global(\.nc)?(\.\w+::\w+)*\.v4\.u32", r"st\.global(\.\w+)?\.v4\.u32"),
        ("LDG.E.128", "STG.E.128"),
    ),
}


class Kernel(NamedTuple):
    file: str  # without .cu
    name: str  # as C++ has it, with template arguments
    code: list[str]  # instructions, without predicates


def plain_names(mangled: list[str]) -> dict[str, str]:
    """Names without namespaces and parameters: surprise_walk<float, (score::Metric)0, 1>."""
    done = subprocess.run(
        ["c++filt", "--no-params"], input="\n".join(mangled), capture_output=True, text=True, check=True
    )
    names = [re.sub(r"\(anonymous namespace\)::|score::cuda::|^void ", "", name) for name in done.stdout.splitlines()]
    return dict(zip(mangled, names, strict=True))


def family(name: str) -> str:
    return name.split("<")[0]


def kernels_of(file: str, ptx: str) -> list[Kernel]:
    texts = re.findall(r"\.entry\s+([\w$]+)(.*?)^\}", re.sub(r"//.*", "", ptx), re.DOTALL | re.MULTILINE)
    names = plain_names([mangled for mangled, _ in texts])
    kernels = []
    for mangled, text in texts:
        statements = [" ".join(part.split()) for part in re.split(r"[;{}]\s", text)]
        code = [re.sub(r"^(\$?\w+:\s*)*(@!?%p\d+ )?", "", statement) for statement in statements]
        kernels.append(Kernel(file, names[mangled], [line for line in code if re.match(r"[a-z]\w*(\.|$| )", line)]))
    return kernels


def inexact_arithmetic(kernel: Kernel) -> Iterator[str]:
    """Float arithmetic that a compiler may contract, or whose rounding a device may choose."""
    if kernel.file not in BIT_EXACT:
        return
    types = "f32" if kernel.file in WITH_LOGARITHMS else "f32|f64"
    for line in kernel.code:
        name = line.split()[0]
        if not re.search(rf"\.({types})\b", name) or re.match(r"(ld|st|mov|cvt|setp|selp|neg|abs|min|max)\.", name):
            continue
        if not re.fullmatch(rf"(add|sub|mul|div|sqrt|rcp)\.rn\.({types})", name):
            yield f"{name}, which is not rounded to nearest in one way everywhere"
    yield from (f"{line.split()[0]}" for line in kernel.code if re.search(r"\.(ftz|approx)\b", line.split()[0]))


def narrow_moves(kernel: Kernel) -> Iterator[str]:
    """Kernels that move rows, and have no instruction for 16 bytes."""
    for begin, (patterns, _) in WIDE.items():
        for pattern in patterns if kernel.name.startswith(begin) else ():
            if not any(re.match(pattern, line) for line in kernel.code):
                yield f"no instruction like {pattern}"


RULES: list[Callable[[Kernel], Iterator[str]]] = [inexact_arithmetic, narrow_moves]


class Use(NamedTuple):
    registers: int
    spilled: int  # bytes, stores and loads together


def parse_uses(said: str) -> dict[str, Use]:
    """What ptxas -v says of each kernel, by its mangled name."""
    spills = r"(\d+) bytes spill stores, (\d+) bytes spill loads"
    pattern = rf"Compiling entry function '([\w$]+)'.*?{spills}.*?Used (\d+) registers"
    return {
        name: Use(int(registers), int(stores) + int(loads))
        for name, stores, loads, registers in re.findall(pattern, said, re.DOTALL)
    }


def assemble(ptx: Path) -> tuple[Path, str]:
    """Machine code for sm_90, and what ptxas says; once for each PTX."""
    cubin, log = ptx.with_suffix(".cubin"), ptx.with_suffix(".ptxas")
    if not log.exists() or log.stat().st_mtime < ptx.stat().st_mtime:
        command = ["ptxas", "-v", "-arch=sm_90", str(ptx), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        log.write_text(done.stdout + done.stderr)
    return cubin, log.read_text()


def uses_of(files: list[Path]) -> dict[tuple[str, str], Use]:
    """The most that the kernels of a family use, by file and family."""
    most: dict[tuple[str, str], Use] = {}
    for ptx in files:
        uses = parse_uses(assemble(ptx)[1])
        names = plain_names(list(uses))
        for mangled, use in uses.items():
            key = (ptx.stem, family(names[mangled]))
            before = most.get(key, Use(0, 0))
            most[key] = Use(max(before.registers, use.registers), max(before.spilled, use.spilled))
    return most


def read_limits() -> dict[tuple[str, str], Use]:
    lines = [line.split() for line in LIMITS.read_text().splitlines() if line and not line.startswith("#")]
    return {(file, name): Use(int(registers), int(spilled)) for file, name, registers, spilled in lines}


def release() -> str:
    said = subprocess.run(["ptxas", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release ([\d.]+)", said)[1]  # type: ignore[index]


def write_limits(uses: dict[tuple[str, str], Use]) -> None:
    head = (
        f"# The most that the kernels of each name use: ptxas {release()} for sm_90.\n"
        "# Written by tools/cuda_lint.py --write.\n"
        "# file  kernel  registers  bytes spilled (stores and loads)\n"
    )
    rows = [f"{file} {name} {use.registers} {use.spilled}\n" for (file, name), use in sorted(uses.items())]
    LIMITS.write_text(head + "".join(rows))


def beyond_limits(uses: dict[tuple[str, str], Use], limits: dict[tuple[str, str], Use]) -> Iterator[str]:
    for (file, name), use in sorted(uses.items()):
        # One that is not listed yet may not spill.
        limit = limits.get((file, name), Use(255, 0))
        if use.registers > limit.registers or use.spilled > limit.spilled:
            yield (
                f"{file}.cu: {name} uses {use.registers} registers and spills {use.spilled} bytes, listed are "
                f"{limit.registers} and {limit.spilled}: mend it, or list it with tools/cuda_lint.py --write"
            )


def narrow_machine_code(files: list[Path]) -> Iterator[str]:
    for ptx in files:
        command = ["cuobjdump", "-sass", str(assemble(ptx)[0])]
        sass = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        parts = re.split(r"Function : ([\w$]+)", sass)
        names = plain_names(parts[1::2])
        for mangled, code in zip(parts[1::2], parts[2::2], strict=True):
            for begin, (_, needed) in WIDE.items():
                for instruction in needed if names[mangled].startswith(begin) else ():
                    if instruction not in code:
                        yield f"{ptx.stem}.cu: {names[mangled]} has no {instruction} in its machine code"


def main(arguments: list[str]) -> int:
    if reason := ptx_build.missing():
        print(reason)
        return 1
    files = ptx_build.build_ptx()
    uses = uses_of(files)
    if arguments == ["--write"]:
        write_limits(uses)
        return 0
    problems = [
        f"{kernel.file}.cu: {kernel.name}: {problem}"
        for ptx in files
        for kernel in kernels_of(ptx.stem, ptx.read_text())
        for rule in RULES
        for problem in sorted(set(rule(kernel)))
    ]
    if release() in LIMITS.read_text():
        limits = read_limits()
        problems += beyond_limits(uses, limits)
        unlisted = sorted(f"{file} {name}" for file, name in uses.keys() ^ limits.keys())
        if unlisted:
            print(f"listed and gone, or not listed yet: {', '.join(unlisted)} (tools/cuda_lint.py --write)")
    else:
        print(f"tools/cuda_registers.txt is of another ptxas than {release()}: registers and spills were not compared")
    if shutil.which("cuobjdump") and shutil.which("nvdisasm"):
        problems += narrow_machine_code(files)
    else:
        print("no cuobjdump and nvdisasm here: 16-byte loads were looked for in PTX, not in machine code")
    print("\n".join(problems) or f"CUDA lints: nothing found in {len(files)} files, {len(uses)} kernels by name")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
