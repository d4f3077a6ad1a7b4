"""Takes each barrier out of the kernels' PTX, one after the other, and lists those that no test misses.

    make mutate [KERNELS="surprise_walk topk_by_team"] [TESTS="surprise or select"]

TESTS, an expression as pytest -k takes it, leaves out tests that do not run these kernels: all of them take minutes.

Instantiations of a template with as many barriers each are taken for the same kernel, of which those that ran most are
tried: a block of one warp needs fewer barriers than one of eight. README.md says why barriers that nobody misses are
there.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import ptx_build
import pytest

import score_ext  # noqa: F401 (and torch, once for all forks)

sys.path.append(str(ptx_build.ROOT / "tools"))

from cuda_lint import family, plain_names

BARRIER = re.compile(r"\b(bar|barrier)\.(cta\.)?(warp\.)?sync\b[^;]*;")
MOST_TESTS = 6  # for one barrier: the quickest of those that run it, and the one that runs it most often
MOST_TWINS = 3  # instantiations that are tried for a barrier


class Site(NamedTuple):
    file: Path
    kernel: str  # mangled
    line: int

    def text(self) -> str:
        return self.file.read_text().splitlines()[self.line - 1].strip()


def run_tests(names: list[str], expression: str = "", **environment: str) -> bool:
    """Whether all of them pass: in a fork, since pytest runs but once in a process, and torch takes long to import."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", expression, *names]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code} on {names}")
    return code == pytest.ExitCode.OK


def sites_of(file: Path) -> list[Site]:
    sites, kernel = [], ""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if begin := re.search(r"\.entry\s+([\w$]+)", line):
            kernel = begin[1]
        elif BARRIER.search(line.split("//")[0]):
            sites.append(Site(file, kernel, number))
    return sites


def source_lines(site: Site, folder: Path) -> str:
    """Where a barrier comes from: its own line, and the last before it that is the project's."""
    located = folder / f"{site.file.stem}.located.ptx"
    if not located.exists():
        kernel = ptx_build.ROOT / f"csrc/cuda/{site.file.stem}.cu"
        flags = ["-std=c++20", "-O3", f"-arch=compute_{ptx_build.ARCH}", "-ptx", "-lineinfo", *ptx_build.INCLUDES]
        subprocess.run(["nvcc", *flags, str(kernel), "-o", str(located)], check=True)
    text = located.read_text()
    files = {number: Path(name) for number, name in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', text)}
    # The same barriers in the same order, but for the lines.
    number = [other.line for other in sites_of(site.file) if other.kernel == site.kernel].index(site.line)
    twins = [other.line for other in sites_of(located) if without_hash(other.kernel) == without_hash(site.kernel)]
    before = "\n".join(text.splitlines()[: twins[number] - 1])
    places = [(files[file], line) for file, line in re.findall(r"(?:\.loc\t|inlined_at )(\d+) (\d+) \d+", before)]
    own = f"{places[-1][0].name}:{places[-1][1]}"
    ours = [f"{path.name}:{line}" for path, line in places if path.is_relative_to(ptx_build.ROOT)]
    return f"{own}, behind {ours[-1]}"


def without_hash(mangled: str) -> str:
    return re.sub(r"_[0-9a-f]{8}", "", mangled)


def what_tests_run(folder: Path) -> tuple[dict[tuple[str, int], list[str]], collections.Counter[str]]:
    """From what each test left: which tests to run for a line of a kernel; instructions by kernel."""
    runs: dict[tuple[str, int], list[tuple[int, str, int]]] = collections.defaultdict(list)
    ran = collections.Counter[str]()
    for left in folder.glob("*.coverage"):
        test = left.with_suffix(".test").read_text()
        rows = [line.split("\t", 2) for line in left.read_text().splitlines()]
        total = sum(int(count) for _, count, _ in rows)
        for place, count, _ in rows:
            kernel, line = place.rsplit(":", 1)
            ran[kernel] += int(count)
            if int(count) > 0:
                runs[kernel, int(line)].append((total, test, int(count)))
    tests = collections.defaultdict(list)
    for site, some in runs.items():
        quickest = [test for _, test, _ in sorted(some)[:MOST_TESTS]]
        often = max(some, key=lambda run: run[2])[1]
        tests[site] = quickest if often in quickest else [*quickest, often]
    return tests, ran


def same_barriers(sites: list[Site], ran: collections.Counter[str], wanted: list[str]) -> list[list[Site]]:
    """The same barrier of instantiations of one template, those that ran most first."""
    names = plain_names(sorted({site.kernel for site in sites}))
    by_kernel = collections.defaultdict(list)
    for site in sites:
        by_kernel[site.kernel].append(site)
    twins: dict[tuple[Path, str, int], list[list[Site]]] = collections.defaultdict(list)
    for kernel, own in sorted(by_kernel.items(), key=lambda item: -ran[item[0]]):
        name = family(names[kernel])
        if ran[kernel] > 0 and (not wanted or name in wanted):
            twins[own[0].file, name, len(own)].append(own)
    return [list(barrier) for kernels in twins.values() for barrier in zip(*kernels[:MOST_TWINS], strict=True)]


def is_missed(site: Site, tests: list[str], folder: Path) -> bool:
    """Whether a test fails without the barrier."""
    lines = site.file.read_text().splitlines()
    lines[site.line - 1] = BARRIER.sub("", lines[site.line - 1])
    mutant = folder / site.file.name
    mutant.write_text("\n".join(lines) + "\n")
    return not run_tests(tests, SCORE_PTX_MUTANT=str(mutant))


def main(wanted: list[str], expression: str) -> int:
    if reason := ptx_build.missing():
        print(reason)
        return 1
    files = ptx_build.build_server()[1:]
    all_tests = [str(path) for path in sorted(ptx_build.HERE.glob("test_*_as_ptx.py"))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if not run_tests(all_tests, expression, SCORE_PTX_COVERAGE=scratch):
            print("the tests do not pass as they are")
            return 1
        sites = [site for file in files if file.stem != "faults" for site in sites_of(file)]
        tests, ran = what_tests_run(folder)
        missed, unmissed, never_run = 0, [], []
        for twins in same_barriers(sites, ran, wanted):
            run = [(twin, tests[twin.kernel, twin.line]) for twin in twins]
            run = [(twin, names) for twin, names in run if names]
            if not run:
                never_run.append(twins[0])
            elif any(is_missed(twin, names, folder) for twin, names in run):
                missed += 1
            else:
                unmissed.append(run[0][0])
            print(".", end="", flush=True)
        print(f"\n{missed} barriers are missed by a test when they are gone")
        for title, some in (("missed by no test", unmissed), ("run by no test", never_run)):
            print(f"{len(some)} {title}")
            for site in some:
                name = plain_names([site.kernel])[site.kernel]
                print(
                    f"  {site.file.name}:{site.line} {name}: {site.text()} ({source_lines(site, folder)})", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ.get("TESTS", "")))
