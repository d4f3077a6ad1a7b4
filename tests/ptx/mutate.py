"""Takes each barrier out of the kernels' PTX, one after the other, and lists those that no test misses.

    make mutate [KERNELS="surprise_walk select_rows"]

Of kernels that are instantiated for several types, the one that most tests run. README.md says why barriers that nobody
misses are there.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import ptx_build
import pytest

sys.path.append(str(ptx_build.ROOT / "tools"))

from cuda_lint import family, plain_names

BARRIER = re.compile(r"\b(bar|barrier)\.(cta\.)?(warp\.)?sync\b[^;]*;")
MOST_TESTS = 8  # for one barrier: the quickest of those that run it


class Site(NamedTuple):
    file: Path
    kernel: str  # mangled
    line: int

    def text(self) -> str:
        return self.file.read_text().splitlines()[self.line - 1].strip()


def run_tests(names: list[str], **environment: str) -> bool:
    """Whether all of them pass."""
    os.environ.update(environment)
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.main(["-x", "-q", "-p", "no:cacheprovider", *names]) == 0


def sites_of(file: Path) -> list[Site]:
    sites, kernel = [], ""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if begin := re.search(r"\.entry\s+([\w$]+)", line):
            kernel = begin[1]
        elif BARRIER.search(line.split("//")[0]):
            sites.append(Site(file, kernel, number))
    return sites


def tests_by_site(folder: Path) -> dict[tuple[str, int], list[str]]:
    """From what each test left: which tests run a line of a kernel, the quickest first."""
    runs: dict[tuple[str, int], list[tuple[int, str]]] = collections.defaultdict(list)
    for left in folder.glob("*.coverage"):
        name = left.with_suffix(".test").read_text()
        rows = [line.split("\t", 2) for line in left.read_text().splitlines()]
        total = sum(int(count) for _, count, _ in rows)
        for place, count, _ in rows:
            if int(count) > 0:
                kernel, line = place.rsplit(":", 1)
                runs[kernel, int(line)].append((total, name))
    return {site: [name for _, name in sorted(tests)] for site, tests in runs.items()}


def chosen_kernels(sites: list[Site], tests: dict[tuple[str, int], list[str]], wanted: list[str]) -> dict[str, str]:
    """Of each template the instantiation that most tests run, with its name."""
    names = plain_names(sorted({site.kernel for site in sites}))
    most = collections.Counter[str]()
    for (kernel, _), runs in tests.items():
        most[kernel] = max(most[kernel], len(runs))
    by_family: dict[str, str] = {}
    for kernel, name in names.items():
        before = by_family.setdefault(family(name), kernel)
        by_family[family(name)] = max(before, kernel, key=lambda kernel: most[kernel])
    return {kernel: names[kernel] for name, kernel in by_family.items() if not wanted or name in wanted}


def main(wanted: list[str]) -> int:
    if reason := ptx_build.missing():
        print(reason)
        return 1
    files = ptx_build.build_server()[1:]
    all_tests = [str(path) for path in sorted(ptx_build.HERE.glob("test_*_as_ptx.py"))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if not run_tests(all_tests, SCORE_PTX_COVERAGE=scratch):
            print("the tests do not pass as they are")
            return 1
        del os.environ["SCORE_PTX_COVERAGE"]
        sites = [site for file in files if file.stem != "faults" for site in sites_of(file)]
        tests = tests_by_site(folder)
        unmissed, never_run, caught = [], [], 0
        chosen = chosen_kernels(sites, tests, wanted)
        for site in sites:
            if site.kernel not in chosen:
                continue
            names = tests.get((site.kernel, site.line), [])[:MOST_TESTS]
            if not names:
                never_run.append(site)
                continue
            lines = site.file.read_text().splitlines()
            lines[site.line - 1] = BARRIER.sub("", lines[site.line - 1])
            mutant = folder / site.file.name
            mutant.write_text("\n".join(lines) + "\n")
            if run_tests(names, SCORE_PTX_MUTANT=str(mutant)):
                unmissed.append(site)
            else:
                caught += 1
            print(".", end="", flush=True)
    print(f"\n{caught} barriers are missed by a test when they are gone")
    for title, some in (("missed by no test", unmissed), ("run by no test", never_run)):
        print(f"{len(some)} {title}")
        for site in some:
            print(f"  {site.file.name}:{site.line} {chosen[site.kernel]}: {site.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
