"""Features, reader, environment: kept, read, trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from rich.progress import Progress

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.composite import show, train_reader
from score_video.composite.dinov2 import LAYERS, write_dinov2
from score_video.composite.dropping import change, drop
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import choose_by, evaluate, flashes_kept, oracle
from score_video.composite.features import fingerprint, fitted, load_features, make_features, tower_of
from score_video.composite.reader import MOST_ANSWERS, Reader, ReaderConfig
from score_video.composite.scenery import FRAMES, SIZE
from score_video.composite.world import COLUMNS, NOT_ASKED, TASK_NAMES, TASKS, TOKENS, make_video
from score_video.errors import ScoreError
from score_video.miniature.reader import grid_places
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl import ScoreConfig, ScoreTrainer
from score_video.rl.environment import EncodedBatch, Example, Selection
from score_video.video.tower import VisionTower, load_tower

Tower = Callable[..., VisionTower]


@pytest.fixture(scope="module")
def reader(features: Path) -> Reader:
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(16, tower_of(features, "reader"), width=24, layers=2, heads=2))
    return reader.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def environment(features: Path, reader: Reader) -> CompositeEnvironment:
    return CompositeEnvironment(reader, features, "validation", 20)


def test_features_are_kept_and_gone_on_with(media: Path, features: Path, tmp_path: Path, tiny_tower: Tower) -> None:
    data = load_features(features, "validation", range(20))
    assert data.tokens.shape == (20, TOKENS, 16)
    assert data.tokens.dtype == torch.float16
    assert data.answers.shape == (20, len(TASKS))
    before = {file.name: file.stat().st_mtime_ns for file in features.iterdir()}
    make_features(media, tiny_tower(), features, "validation", range(20))
    assert {file.name: file.stat().st_mtime_ns for file in features.iterdir()} == before
    with pytest.raises(ScoreError, match="is of another world or tower"):
        make_features(media, tiny_tower(seed=1), features, "validation", range(20))
    with pytest.raises(ScoreError, match=r"validation-00020\.safetensors is missing"):
        load_features(features, "validation", range(40))
    with pytest.raises(ScoreError, match="videos must begin and end at multiples of 20"):
        make_features(media, tiny_tower(), tmp_path, "validation", range(30))
    assert fingerprint(tiny_tower()) == tower_of(features, "validation")


def test_a_tower_of_other_tokens_is_refused(media: Path, tmp_path: Path, tiny_tower: Tower) -> None:
    with pytest.raises(ScoreError, match=f"tower must make {TOKENS} tokens of a video, tiny makes"):
        make_features(media, replace(tiny_tower(), patch=7), tmp_path, "validation", range(20))


def test_tokens_of_several_patches(media: Path, tmp_path: Path, tiny_tower: Tower) -> None:
    """Each is its four patches' features, row by row, of a frame that is twice as large."""
    make_features(media, tiny_tower(), tmp_path, "validation", range(20), merge=2)
    made = load_features(tmp_path, "validation", range(20))
    assert made.tokens.shape == (20, TOKENS, 4 * 16) and made.thumbnails is None
    assert tower_of(tmp_path, "validation") == f"{fingerprint(tiny_tower())}-merged-2"
    large = fitted(tiny_tower(), 2).encode(make_video(media, "validation", 3).pixels).tokens
    grid = large.view(FRAMES, 2 * COLUMNS, 2 * COLUMNS, 16)
    for frame, y, x in ((0, 0, 0), (5, 3, 7), (15, 8, 8)):
        expected = grid[frame, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].flatten().half()
        assert torch.equal(made.tokens[3, (frame * COLUMNS + y) * COLUMNS + x], expected)
    with pytest.raises(ScoreError, match="merge must be 1 behind a gate, got 2"):
        gate = Gate(Compressor("evs-dithered", 0.3), 0, "evs-dithered")
        make_features(media, tiny_tower(), tmp_path / "gated", "validation", range(20), gate, 2)


def test_an_earlier_layer_of_dinov2(media: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for layers in (LAYERS, 5):
        write_dinov2(media, tmp_path / str(layers), layers)
    whole, part = (load_tower(str(tmp_path / str(layers)), torch.device("cpu")).model for layers in (LAYERS, 5))
    pixels = torch.randn(1, 3, 126, 126)
    with torch.no_grad():
        expected = whole.layernorm(whole(pixel_values=pixels, output_hidden_states=True).hidden_states[5])
        torch.testing.assert_close(part(pixel_values=pixels).last_hidden_state, expected)
    with pytest.raises(ScoreError, match="layers must be 1 to 12, got 13"):
        write_dinov2(media, tmp_path / "more", 13)


def test_a_reader_comes_back_as_it_was_saved(reader: Reader, tmp_path: Path) -> None:
    reader.save(tmp_path / "r.safetensors")
    again = Reader.load(tmp_path / "r.safetensors")
    tokens, place = torch.randn(2, 7, 16), torch.rand(2, 7, 3)
    torch.testing.assert_close(again.read(tokens, place)[0], reader.read(tokens, place)[0], rtol=0.02, atol=0.02)
    (tmp_path / "r.safetensors").write_bytes(b"no weights")
    with pytest.raises(ScoreError, match="is damaged, or no safetensors file"):
        Reader.load(tmp_path / "r.safetensors")
    with pytest.raises(FileNotFoundError):
        Reader.load(tmp_path / "none.safetensors")


def test_padding_says_nothing(reader: Reader) -> None:
    tokens, place = torch.randn(1, 9, 16), torch.rand(1, 9, 3)
    mask = torch.arange(9)[None] < 6
    short = reader.read(tokens[:, :6], place[:, :6])[0]
    torch.testing.assert_close(reader.read(tokens, place, mask)[0], short)
    assert short.shape == (1, len(TASKS), MOST_ANSWERS)
    torch.testing.assert_close(short.exp().sum(2), torch.ones(1, len(TASKS)))


def test_dropping_keeps_as_many_as_it_is_told(features: Path) -> None:
    data = load_features(features, "reader", range(20))
    generator = torch.Generator().manual_seed(0)
    for keep in (1, 50, TOKENS):
        kept = drop(data.tokens, change(data.tokens), data.shown, data.live, keep, generator)
        assert kept.shape == (20, keep)
        assert (kept.diff(dim=1) > 0).all()


def test_mirrored_videos_have_the_answers_of_mirrored_videos() -> None:
    """A thing that goes to the right, from the upper left quarter: wherever its places go, the answer follows."""
    size, generator = 200, torch.Generator().manual_seed(1)
    along = torch.linspace(0.1, 0.4, 8)
    place = torch.stack([torch.linspace(0, 1, 8), torch.full((8,), 0.2), along], 1)
    answers = torch.full((size, len(TASKS)), NOT_ASKED)
    answers[:, TASK_NAMES.index("direction")] = 1
    answers[:, TASK_NAMES.index("where")] = 0
    answers[:, TASK_NAMES.index("order")] = 0
    hints = torch.tensor([0, 0, 0, 1, 8]).expand(size, -1)
    nothing = torch.zeros(0)
    batch = train_reader._Batch(nothing, nothing, nothing, place.expand(size, -1, -1), answers, hints)
    train_reader._mirror(batch, generator)
    for row in range(size):
        order = batch.place[row, :, 0].argsort()
        moved = batch.place[row, order[-1]] - batch.place[row, order[0]]
        axis = int(moved[1].abs() > moved[2].abs())
        assert batch.answers[row, TASK_NAMES.index("direction")] == 2 * axis + int(moved[2 - axis] > 0)
        quarter = batch.place[row].mean(0)
        where = 2 * int(quarter[1] > 0.5) + int(quarter[2] > 0.5)
        assert batch.answers[row, TASK_NAMES.index("where")] == where
        backwards = bool(batch.place[row, 0, 0] > batch.place[row, -1, 0])
        assert batch.answers[row, TASK_NAMES.index("order")] == int(backwards)
        assert batch.hints[row, 3:].tolist() == [6 if backwards else 1, 8]
    assert len(batch.answers.unique(dim=0)) == 16


def test_training_a_reader_lowers_its_loss(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_reader, "NAMING_STEPS", 3)
    monkeypatch.setattr(train_reader, "MOST_VIDEOS", 4)
    data = load_features(features, "reader", range(20))
    place = grid_places(FRAMES, COLUMNS).expand(20, -1, -1)

    def loss(steps: int) -> float:
        with Progress(disable=True) as progress:
            trained = train_reader.train_reader(data, tower_of(features, "reader"), 0, steps, progress).eval()
        with torch.no_grad():
            log_p = trained.read(data.tokens.float(), place)[0]
        right = log_p.gather(2, data.answers.clamp(min=0)[..., None])[..., 0]
        return float(-right[data.answers != NOT_ASKED].mean())

    assert loss(25) < loss(1)


def test_answers_of_samples_are_those_of_each_alone(environment: CompositeEnvironment) -> None:
    batch = environment.encode([{"number": 3}, {"number": 7}])
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([[5, 9], [12, 1]], dtype=torch.int32)
    rows = [
        [torch.randperm(TOKENS, generator=generator)[: counts[g, b]].sort().values + b * TOKENS for b in range(2)]
        for g in range(2)
    ]
    index = torch.cat([part for of_sample in rows for part in of_sample])
    outcome = environment.answer(batch, Selection(index, counts), divergence=True, full=True)
    assert outcome.divergence is not None
    assert outcome.full_log_prob is not None
    assert (outcome.divergence >= 0).all()
    for video, number in enumerate((3, 7)):
        alone = environment.encode([{"number": number}])
        own = torch.cat([rows[g][video] - video * TOKENS for g in range(2)])
        of_one = environment.answer(alone, Selection(own, counts[:, video : video + 1]))
        torch.testing.assert_close(of_one.log_prob[:, 0], outcome.log_prob[:, video])
    everything = Selection(torch.arange(2 * TOKENS), batch.videos.lengths[None])
    torch.testing.assert_close(environment.answer(batch, everything).log_prob[0], outcome.full_log_prob)


def test_wrong_examples_and_towers(environment: CompositeEnvironment, features: Path) -> None:
    with pytest.raises(ScoreError, match="number must be one of 0 to 19, the validation videos made, got 20"):
        environment.encode([{"number": 20}])
    with pytest.raises(ScoreError, match="number must be one of 0 to 19, the still videos made, got 20"):
        environment.encode([{"number": 20, "still": True}])
    with pytest.raises(ScoreError, match="still must be true or false and the same in a batch, got False and True"):
        environment.encode([CompositeVideos(20)[0], CompositeVideos(20, still=True)[0]])
    with pytest.raises(ScoreError, match="still must be true or false and the same in a batch, got 'no'"):
        environment.encode([{"number": 0, "still": "no"}])
    with pytest.raises(ScoreError, match="examples must not be empty"):
        environment.encode([])
    with pytest.raises(
        ScoreError, match="partition must be one of reader, policy, still, validation, test, got 'stil'"
    ):
        CompositeEnvironment(environment.reader, features, "stil")  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match=r"videos must begin and end at multiples of 20, got range\(0, 30\)"):
        CompositeEnvironment(environment.reader, features, "validation", 30)
    with pytest.raises(ScoreError, match="features must be of the reader's tower, other, got"):
        CompositeEnvironment(Reader(ReaderConfig(16, "other")), features, "validation", 20)
    with pytest.raises(ScoreError, match="num_videos must be 0 or more"):
        CompositeVideos(-1)


def test_a_curriculum_sees_stills_and_then_videos(
    environment: CompositeEnvironment, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: load_features(features, name, range(20)) for name in ("still", "validation")}  # type: ignore[arg-type]
    seen = []

    def encode(examples: Sequence[Example]) -> EncodedBatch:
        batch = CompositeEnvironment.encode(environment, examples)
        own = kept["still" if len(seen) < 2 else "validation"].at(torch.tensor([one["number"] for one in examples]))
        assert torch.equal(batch.videos.tokens, own.tokens.flatten(0, 1).float())
        assert torch.equal(batch.payload.answers, own.answers)
        seen.append(examples)
        return batch

    monkeypatch.setattr(environment, "encode", encode)
    settings = {"max_steps": 3, "per_device_train_batch_size": 2, "num_generations": 2, "retention": 0.02}
    stages = [{"name": "video", "data": "still", "steps": 2}, {"name": "video"}]
    config = ScoreConfig(
        output_dir=str(tmp_path), stages=stages, use_cpu=True, report_to=[], disable_tqdm=True, **settings
    )
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    videos = {"still": CompositeVideos(20, still=True), "video": CompositeVideos(20)}
    ScoreTrainer(policy, environment, config, videos).train()
    assert [[example["still"] for example in examples] for examples in seen] == [[True] * 2] * 2 + [[False] * 2]


@pytest.mark.parametrize("sampling", ["exact", "diverse"])
def test_a_policy_trains_and_is_evaluated(environment: CompositeEnvironment, sampling: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    before = [parameter.clone() for parameter in policy.parameters()]
    config = ScoreConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        retention=0.01,
        sampling=sampling,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = ScoreTrainer(policy, environment, config, CompositeVideos(20))
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))
    batches = list(environment.batches())
    everything = evaluate(environment, batches, None)
    kept = evaluate(environment, batches, choose_by(trainer.compressor()), 0.02)
    assert flashes_kept(batches, oracle, 1.0) == 1
    assert flashes_kept(batches, oracle, 0.1) > 0.9
    assert 0 <= kept.mean <= 1
    assert set(kept.by_task) <= set(TASKS)
    difference = kept.answers.minus(everything.answers)
    assert difference.value == pytest.approx(kept.mean - everything.mean)
    assert difference.error > 0
    assert evaluate(environment, batches, choose_by(Compressor("uniform")), 1.0).results.equal(everything.results)


def test_what_is_kept_is_drawn(media: Path, features: Path, reader: Reader, tmp_path: Path) -> None:
    reader.save(tmp_path / "reader.safetensors")
    out = tmp_path / "kept.png"
    options = {"partition": "validation", "reader": tmp_path / "reader.safetensors", "retention": 0.02}
    show.main(media, features, 7, out, ["pretrained", "divprune"], **options)  # type: ignore[arg-type]
    with Image.open(out) as picture:
        assert picture.size[0] > FRAMES * SIZE and picture.size[1] > 4 * SIZE  # the video and three rows
    with pytest.raises(typer.BadParameter, match="must be one of reader, policy, still, validation, test, got train"):
        show.main(media, features, 7, out, partition="train")
