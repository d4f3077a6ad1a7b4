"""The tiny video MLLM: what it may see, and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.readers import tiny_reader
from safetensors.torch import load_file, save_file
from torch import Tensor

from score_video.miniature.reader import Reader, ReaderConfig, answer_loss, grid_places, place_features
from score_video.miniature.world import TASKS


def tokens(videos: int = 3, length: int = 10, width: int = 8) -> tuple[Tensor, Tensor]:
    """Random tokens [B, n, D] and places [B, n, 3]."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(videos, length, width, generator=generator)
    return drawn, torch.rand(videos, length, 3, generator=generator)


def test_answers_are_distributions() -> None:
    log_probabilities = tiny_reader().read(*tokens())[2]
    assert log_probabilities.shape == (3, len(TASKS), 5)
    for number, task in enumerate(TASKS):
        own, others = log_probabilities[:, number].split([len(task.answers), 5 - len(task.answers)], dim=1)
        assert torch.allclose(own.exp().sum(1), torch.ones(3))
        assert (others == -math.inf).all()


def test_the_order_of_tokens_does_not_matter_and_their_places_do() -> None:
    reader, (x, place) = tiny_reader(), tokens()
    answers = reader.read(x, place)[2].exp()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(reader.read(x[:, order], place[:, order])[2].exp(), answers, atol=1e-6)
    assert not torch.allclose(reader.read(x[:, order], place)[2].exp(), answers, atol=1e-4)


def test_padding_changes_nothing() -> None:
    reader, (x, place) = tiny_reader(), tokens()
    answers = reader.read(x, place)[2].exp()
    mask = torch.ones(3, 14, dtype=torch.bool)
    mask[:, [0, 5, 6, 13]] = False
    wide_x, wide_place = torch.full((3, 14, 8), 1e3), torch.full((3, 14, 3), 0.3)
    wide_x[mask], wide_place[mask] = x.flatten(0, 1), place.flatten(0, 1)
    assert torch.allclose(reader.read(wide_x, wide_place, mask)[2].exp(), answers, atol=1e-6)
    # and what is not padding does
    mask[:, 0] = True
    assert not torch.allclose(reader.read(wide_x, wide_place, mask)[2].exp(), answers, atol=1e-4)


def test_questions_for_training_do_not_touch_the_others() -> None:
    reader, (x, place) = tiny_reader(), tokens()
    without, with_hints = reader.read(x, place), reader.read(x, place, hints=True)
    assert with_hints[0].shape[1] == without[0].shape[1] + 6
    assert torch.allclose(with_hints[2].exp(), without[2].exp(), atol=1e-6)


@pytest.mark.parametrize(("patch", "columns"), [(3, 8), (4, 6), (6, 4)])
def test_a_token_sees_its_neighbourhood_in_one_frame(patch: int, columns: int) -> None:
    reader = tiny_reader(patch=patch)
    assert reader.config.columns == columns
    pixels = torch.rand(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    seen = reader.tower(pixels)
    assert seen.shape == (2, 3, columns * columns, 8)
    pixels[1, 1, :, :patch, :patch] = 1 - pixels[1, 1, :, :patch, :patch]
    changed = (reader.tower(pixels) - seen).abs().amax(3) > 1e-6
    assert changed[1, 1, 0]
    assert not changed[0].any() and not changed[1, [0, 2]].any()
    rows, across = torch.nonzero(changed[1, 1].view(columns, columns)).unbind(1)
    assert rows.max() <= 2 and across.max() <= 2


def test_places() -> None:
    place = grid_places(3, 2)
    assert place.shape == (12, 3)
    assert place[0].tolist() == [0, 0.25, 0.25]
    assert place[7].tolist() == [0.5, 0.75, 0.75]
    assert place[9].tolist() == [1, 0.25, 0.75]
    assert place_features(place).shape == (12, 27)
    assert len(place_features(place).unique(dim=0)) == 12


def test_the_loss_is_of_what_is_asked() -> None:
    log_probabilities = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [1.0, 0.0]]]).log()
    loss = answer_loss(log_probabilities, torch.tensor([[0, -1], [1, 0]]))
    assert float(loss) == pytest.approx(-(math.log(0.5) + math.log(0.9) + math.log(1.0)) / 3)


def test_saved_and_loaded(tmp_path: Path) -> None:
    reader, (x, place) = tiny_reader(patch=6), tokens()
    reader.save(tmp_path / "reader.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["reader.safetensors"]
    loaded = Reader.load(tmp_path / "reader.safetensors")
    assert loaded.config == reader.config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    # the file has 11 bits of each weight
    assert torch.allclose(loaded.read(x, place)[2].exp(), reader.read(x, place)[2].exp(), atol=5e-3)
    for name, weight in loaded.state_dict().items():
        if not name.startswith(("hints", "live")):
            assert torch.equal(weight, reader.state_dict()[name].half().float())
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "reader.safetensors").read_bytes()


def test_the_file_is_small(tmp_path: Path) -> None:
    Reader(ReaderConfig()).save(tmp_path / "reader.safetensors")
    assert (tmp_path / "reader.safetensors").stat().st_size < 1_000_000


def test_files_that_are_no_readers(tmp_path: Path) -> None:
    path = tmp_path / "reader.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no weights of a reader.*reader\.safetensors"):
        Reader.load(path)
    path.write_bytes(b"not a file of weights" * 100)
    with pytest.raises(ValueError, match=r"reader\.safetensors is damaged, or no safetensors file"):
        Reader.load(path)
    reader = tiny_reader()
    reader.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"reader\.safetensors is damaged"):
        Reader.load(path)
    path.write_bytes(whole)
    weights = load_file(path)
    config = json.dumps(vars(reader.config))
    for metadata, changed, said in (
        (None, weights, "holds no reader"),
        ({"config": "[]"}, weights, "holds no reader"),
        ({"config": '{"colour": 1}'}, weights, "holds no reader.*colour"),
        ({"config": '{"patch": 5}'}, weights, "holds no reader"),
        ({"config": "{}"}, weights, "holds no reader.*size mismatch"),
        ({"config": config}, {**weights, "x": torch.zeros(1)}, "another reader: x is"),
        ({"config": config}, {k: w for k, w in weights.items() if k != "norm.bias"}, "another reader: norm.bias is"),
    ):
        save_file(changed, path, metadata)
        with pytest.raises(ValueError, match=rf"reader\.safetensors holds .*{said.removeprefix('holds ')}"):
            Reader.load(path)
