"""Fetches the sources of vLLM's releases, and says what each lacks of what the plugin relies on.

    python tools/vllm_releases.py [RELEASE...]     by default those of RELEASES

pip downloads each wheel (300 MB and more) once; its Python files stay in build/vllm-releases/RELEASE, the wheel does
not. Nothing of them is run or installed: a release that runs on no CPU is checked all the same. Exits with 1 where
something is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from score_video.serving.vllm_check import missing

FOLDER = Path(__file__).parent.parent / "build" / "vllm-releases"
RELEASES = ("0.32.0", "0.33.0")


def fetch(release: str) -> Path:
    """The folder ``vllm`` of a release's sources.

    Raises:
        subprocess.CalledProcessError: pip could not download it.
    """
    folder = FOLDER / release
    if not (folder / "ready").exists():
        with tempfile.TemporaryDirectory() as temporary:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--dest", temporary, f"vllm=={release}"], check=True)
            (wheel,) = Path(temporary).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
        (folder / "ready").touch()
    return folder / "vllm"


def main(releases: list[str]) -> int:
    status = 0
    for release in releases:
        lacking = missing(fetch(release))
        print(f"vLLM {release}: " + ("nothing is missing" if not lacking else "missing: " + "; ".join(lacking)))
        status |= bool(lacking)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(RELEASES)))
