"""Compressor: exact counts, which law with what, adaptive counts, saving and loading, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers.packs import RAGGED, random_frames, random_videos, shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext.budget import keep_count
from score_video.compressor import AdaptiveRetention, Compressor
from score_video.errors import ScoreError
from score_video.methods import METHODS, RandomMethod, ScoreMethod
from score_video.packed import PackedVideos, Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, expected_count, pretrained_policy, storage


def policy(**options: Any) -> SurprisePolicy:
    torch.manual_seed(0)
    model = SurprisePolicy(SurprisePolicyConfig(**{"token_width": 6, **options}))
    torch.nn.init.normal_(model.output.weight)  # logits that differ
    return model


def make(kind: str, **options: Any) -> Compressor:
    return Compressor(policy() if kind == "policy" else kind, **options)


@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from(["policy", *METHODS]), st.floats(0.01, 1.0))
def test_exact_counts(sizes: list[tuple[int, int, int]], kind: str, retention: float) -> None:
    videos = PackedVideos.from_frames([random_frames(size, 6, number) for number, size in enumerate(sizes)])
    selected = make(kind, retention=retention).select(videos)
    expected = [keep_count(t, rows * columns, retention) for t, rows, columns in sizes]
    assert selected.keep.dtype == torch.int32
    assert selected.keep.tolist() == expected
    assert selected.index.dtype == torch.int64
    assert (selected.index.diff() > 0).all()
    kept = torch.bincount(videos.video_of_token[selected.index], minlength=len(sizes))
    assert kept.tolist() == expected


@settings(max_examples=15, deadline=None)
@given(shapes, st.sampled_from(["policy", *METHODS]), st.floats(0.01, 1.0))
def test_given_counts_come_before_the_retention(sizes: list[tuple[int, int, int]], kind: str, retention: float) -> None:
    videos = PackedVideos.from_frames([random_frames(size, 6, number) for number, size in enumerate(sizes)])
    counts = [keep_count(t, rows * columns, retention) for t, rows, columns in sizes]
    given_counts = make(kind, retention=1.0).select(videos, keep=counts)
    assert given_counts.keep.tolist() == counts
    assert torch.equal(given_counts.index, make(kind, retention=retention).select(videos).index)


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        ([1, 1], ValueError, f"keep must be {len(RAGGED)} counts, one for each video, got 2"),
        ([1.0] * len(RAGGED), TypeError, "keep must hold integers, got 1.0"),
        ([True] * len(RAGGED), TypeError, "keep must hold integers, got True"),
        ([-1] * len(RAGGED), ValueError, "keep must not be negative, got -1"),
        ([10**6] * len(RAGGED), ValueError, "keep"),
    ],
)
@pytest.mark.parametrize("kind", ["policy", "norm", "vidcom2"])
def test_refuses_counts_that_do_not_fit(kind: str, keep: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(kind).select(random_videos(), keep=keep)


@pytest.mark.parametrize("law", ["systematic", "topk"])
def test_picks_by_the_law(law: Any) -> None:
    videos, model = random_videos(), policy()
    keep = torch.tensor([keep_count(t, r * c, 0.3) for t, r, c in RAGGED], dtype=torch.int32)
    wanted = score_ext.select(model(videos).detach(), videos.cu_seqlens, keep, int(keep.sum()), law)
    assert torch.equal(Compressor(model, 0.3, law).select(videos).index, wanted)
    by_norm = METHODS["norm"].index(videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, keep, selection=law)
    assert torch.equal(Compressor("norm", 0.3, law).select(videos).index, by_norm)


@pytest.mark.parametrize(
    ("compressor", "law"),
    [
        (Compressor(), "diverse"),
        (Compressor(selection="systematic"), "systematic"),
        (Compressor(selection="topk"), "topk"),
        (Compressor("norm"), "topk"),
        (Compressor("norm", selection="systematic"), "systematic"),
        (Compressor("vidcom2"), None),
    ],
)
def test_selection_used(compressor: Compressor, law: str | None) -> None:
    assert compressor.selection_used == law


@pytest.mark.parametrize("kind", ["policy", *(name for name, m in METHODS.items() if isinstance(m, ScoreMethod))])
def test_law_by_default(kind: str) -> None:
    videos = random_videos()
    laws: tuple[Any, ...] = (None, "diverse", "systematic", "topk")
    default, diverse, systematic, topk = (make(kind, retention=0.3, selection=law).select(videos).index for law in laws)
    assert torch.equal(default, diverse if kind == "policy" else topk)
    assert not torch.equal(systematic, topk) and not torch.equal(systematic, diverse)


@pytest.mark.parametrize("width", [1, 6, 40])
def test_given_nothing(width: int) -> None:
    """The policy that comes with the package, for tokens of any width; each compressor has one of its own."""
    videos = PackedVideos.from_frames([random_frames(size, width, number) for number, size in enumerate(RAGGED)])
    selected = Compressor().select(videos)
    assert torch.equal(selected.index, Compressor(pretrained_policy()).select(videos).index)
    assert selected.keep.tolist() == [keep_count(t, rows * columns, 0.1) for t, rows, columns in RAGGED]
    one, other = Compressor().method, Compressor().method
    assert isinstance(one, SurprisePolicy)
    assert one.config.state == "relative"
    assert one is not other
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_the_seed_is_what_random_draws_from() -> None:
    def chosen(method: RandomMethod | str) -> Tensor:
        return Compressor(method, 0.5).select(random_videos()).index

    assert torch.equal(chosen(RandomMethod(1)), chosen(RandomMethod(1)))
    assert not torch.equal(chosen(RandomMethod(1)), chosen(RandomMethod(2)))
    assert torch.equal(chosen("random"), chosen(RandomMethod(0)))
    assert (Compressor("random").seed, Compressor(RandomMethod(3)).seed, Compressor("evs").seed) == (0, 3, None)


def test_seed_of_a_compressor_is_now_the_random_rules() -> None:
    with pytest.warns(DeprecationWarning, match=r"seed is now given as RandomMethod\(seed\)") as warned:
        assert same(Compressor("random", 0.3, seed=3), Compressor(RandomMethod(3), 0.3))
    assert [Path(warning.filename) for warning in warned] == [Path(__file__)]
    with pytest.warns(DeprecationWarning):
        assert same(replace(Compressor("random"), seed=3), Compressor(RandomMethod(3)))
    with pytest.warns(DeprecationWarning):
        assert same(Compressor(method="evs", seed=3), Compressor("evs"))
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(ScoreError, match="seed must fit in 64 bits, got"),
    ):
        Compressor("random", seed=2**63)


def test_adaptive_counts_follow_the_policy() -> None:
    videos = random_videos(((6, 3, 4), (0, 2, 2), (5, 4, 4), (1, 1, 1)))
    model = policy(initial_retention=0.3)
    expected = expected_count(model(videos), videos).detach()
    selected = Compressor(model, AdaptiveRetention(0.01, 1.0)).select(videos)
    assert selected.keep[:3].tolist() == [round(count) for count in expected[:3].tolist()]
    assert selected.keep[3] == 1  # the floor of a video that is not empty
    assert len(set(selected.keep.tolist())) > 2
    assert len(selected.index) == selected.keep.sum()


@pytest.mark.parametrize(("retention", "bound"), [(0.001, 0.2), (0.999, 0.4)])
def test_adaptive_counts_stay_in_their_bounds(retention: float, bound: float) -> None:
    model = SurprisePolicy(SurprisePolicyConfig(token_width=6, initial_retention=retention))
    selected = Compressor(model, AdaptiveRetention(0.2, 0.4)).select(random_videos())
    assert selected.keep.tolist() == [keep_count(t, r * c, bound) for t, r, c in RAGGED]


def test_adaptive_count_of_nan() -> None:
    videos = random_videos()
    videos.tokens[-1, 0] = torch.nan
    with pytest.raises(ValueError, match="tokens of video 5 give logits with NaN: it has no count"):
        Compressor(policy(), AdaptiveRetention(0.1, 0.5)).select(videos)
    assert len(Compressor(policy(), 0.1).select(videos).index) > 0


def test_question() -> None:
    videos, question = random_videos(), torch.randn(len(RAGGED), 3)
    model = policy(question_width=3)
    selected = Compressor(model, selection="topk").select(videos, question)
    logits = model(videos, question).detach()
    wanted = score_ext.select(logits, videos.cu_seqlens, selected.keep, int(selected.keep.sum()))
    assert torch.equal(selected.index, wanted)
    with pytest.raises(ValueError, match="question must be"):
        Compressor(model).select(videos)
    with pytest.raises(ValueError, match="question must be None: 'norm' does not see it"):
        Compressor("norm").select(videos, question)


def same(a: Compressor, b: Compressor) -> bool:
    if (a.retention, a.selection, a.seed) != (b.retention, b.selection, b.seed):
        return False
    if not (isinstance(a.method, SurprisePolicy) and isinstance(b.method, SurprisePolicy)):
        return a.method == b.method
    mine, other = a.method.state_dict(), b.method.state_dict()
    return mine.keys() == other.keys() and all(
        torch.equal(mine[name], other[name]) and mine[name].dtype == other[name].dtype for name in mine
    )


@pytest.mark.parametrize(
    "saved",
    [
        Compressor(),
        Compressor("random", 0.25),
        Compressor(RandomMethod(-(2**63)), 0.25),
        Compressor("evs", 1, "topk"),
        Compressor(policy(hidden_sizes=[5], use_position=False), 0.05),
        Compressor(policy().to(torch.bfloat16), AdaptiveRetention(0.02, 0.5), "topk"),
        Compressor(policy(token_width=0, state="relative", question_width=3)),
    ],
)
def test_saved_and_loaded(tmp_path: Path, saved: Compressor) -> None:
    saved.save_pretrained(tmp_path / "new")
    loaded = Compressor.from_pretrained(str(tmp_path / "new"))
    assert same(saved, loaded)
    question = torch.randn(len(RAGGED), 3) if "question" in str(saved.method) else None
    assert torch.equal(saved.select(random_videos(), question).index, loaded.select(random_videos(), question).index)


def test_replaces_a_former_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "compressor"
    Compressor(policy()).save_pretrained(folder)
    Compressor("evs").save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        Compressor().save_pretrained(folder)
    assert same(Compressor.from_pretrained(folder), Compressor("evs"))


def test_a_failed_save_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "compressor"
    Compressor("evs").save_pretrained(folder)
    monkeypatch.setattr(storage, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Compressor(policy()).save_pretrained(folder)
    assert same(Compressor.from_pretrained(folder), Compressor("evs"))
    assert [path.name for path in tmp_path.iterdir()] == ["compressor"]


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Compressor(policy(), 0.2)
    saved.save_pretrained(tmp_path / "cache")
    asked = []

    def download(repo: str, name: str, revision: str | None) -> str:
        asked.append((repo, name, revision))
        return str(tmp_path / "cache" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert same(Compressor.from_pretrained("owner/name", revision="v1"), saved)
    assert set(asked) == {("owner/name", "config.json", "v1"), ("owner/name", "model.safetensors", "v1")}


@pytest.mark.parametrize("source", ["nowhere", "./nowhere", "a/b/c", "", Path("owner/name")])
def test_no_such_folder(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        Compressor.from_pretrained(source)


def change(config: dict[str, Any], **values: Any) -> str:
    return json.dumps({**config, **values})


def as_0_1_wrote(folder: Path, *, seed: int = 0) -> None:
    """Makes config.json what release 0.1.0 had in it: ``law``, a seed for every method, none of what came later."""
    config = json.loads((folder / "config.json").read_text())
    if "policy" in config:
        had = ("token_width", "state", "hidden_sizes", "use_token", "use_residual", "use_position", "question_width")
        config["policy"] = {name: config["policy"][name] for name in (*had, "initial_retention")}
    config |= {"law": config.pop("selection"), "seed": seed}
    assert config.keys() == {"model_type", "retention", "law", "seed", "policy" if "policy" in config else "method"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "made",
    [Compressor(policy(), 0.2, "topk"), Compressor("evs"), Compressor(RandomMethod(3))],
    ids=["policy", "rule", "random"],
)
def test_a_folder_of_the_first_release_is_loaded(made: Compressor, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path)
    as_0_1_wrote(tmp_path, seed=3)
    assert same(Compressor.from_pretrained(tmp_path), made)


@pytest.mark.parametrize(
    ("edit", "error", "text"),
    [
        (lambda c: "{", ValueError, "is not JSON"),
        (lambda c: "[]", ValueError, "must hold an object, got list"),
        (lambda c: change(c, model_type="other"), ValueError, "model_type must be 'score_compressor' or"),
        (lambda c: change(c, retension=0.1), ValueError, "has an unknown key 'retension'"),
        (lambda c: change(c, method="evs"), ValueError, "has an unknown key 'method'"),
        (lambda c: json.dumps({k: v for k, v in c.items() if k != "retention"}), ValueError, "lacks 'retention'"),
        (lambda c: change(c, retention=2), ValueError, "retention must be above 0 and at most 1, got 2"),
        (lambda c: change(c, retention={"floor": 0.1}), ValueError, "cap"),
        (lambda c: change(c, retention={"floor": 0.1, "cap": 0.2, "x": 1}), ValueError, "'x'"),
        (lambda c: change(c, selection="best"), ValueError, "selection must be .* or None, got 'best'"),
        (lambda c: change(c, policy=3), ValueError, "policy must be an object, got int"),
        (lambda c: change(c, policy={}), ValueError, "policy lacks 'hidden_sizes'"),
        (lambda c: change(c, policy={**c["policy"], "x": 1}), ValueError, "a policy's config has no 'x'"),
        (lambda c: change(c, policy={**c["policy"], "token_width": 7}), ValueError, "weights of another policy"),
    ],
)  # fmt: skip
def test_wrong_config(tmp_path: Path, edit: Any, error: type[Exception], text: str) -> None:
    folder = tmp_path / "compressor"
    Compressor(policy()).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(edit(json.loads(path.read_text())))
    with pytest.raises(error, match=text) as caught:
        Compressor.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_damaged_and_missing_weights(tmp_path: Path) -> None:
    folder = tmp_path / "compressor"
    Compressor(policy()).save_pretrained(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        Compressor.from_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        Compressor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "best"}, ValueError, "there is no method 'best'"),
        ({"method": None}, TypeError, "method must be a policy, a name, or an object with .* got NoneType"),
        ({"retention": 0}, ValueError, "retention must be above 0 and at most 1, got 0"),
        ({"retention": True}, TypeError, "retention must be a number, got True"),
        (
            {"method": "evs", "retention": AdaptiveRetention(0.1, 0.2)},
            ValueError,
            "retention must be a fraction for 'evs'",
        ),
        (
            {"selection": "bottomk"},
            ValueError,
            "selection must be 'systematic', 'topk', 'diverse' or None, got 'bottomk'",
        ),
        ({"method": "vidcom2", "selection": "topk"}, ValueError, "selection must be None for 'vidcom2'"),
        (
            {"method": RandomMethod(1), "selection": "topk"},
            ValueError,
            "selection must be None for RandomMethod",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Compressor(**options)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.3, 0.2), r"floor must be at most cap, 0\.2, got 0\.3"),
        ((0, 1), "floor must be above 0"),
        ((0.1, 1.1), "cap"),
    ],
)
def test_wrong_bounds(bounds: tuple[float, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AdaptiveRetention(*bounds)


class ByNorm:
    """A rule of a user's own that scores."""

    def scores(self, videos: PackedVideos) -> Tensor:
        return videos.tokens.norm(dim=1)


class LastFirst:
    """A rule of a user's own that selects: the last tokens of each video."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def select(self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None) -> Any:
        assert keep is not None
        ends = (videos.cu_seqlens[1:] - self.shift).tolist()
        rows = [torch.arange(end - count, end) for end, count in zip(ends, keep, strict=True)]
        return Selection(torch.cat(rows), torch.tensor(list(keep), dtype=torch.int32))


@pytest.mark.parametrize("how", [None, "topk", "systematic"])
def test_a_rule_of_your_own_that_scores(how: Any) -> None:
    videos = random_videos()
    mine, ours = (Compressor(method, 0.3, how).select(videos) for method in (ByNorm(), "norm"))
    assert torch.equal(mine.index, ours.index)
    assert torch.equal(mine.keep, ours.keep)


def test_a_rule_of_your_own_that_selects() -> None:
    videos = random_videos()
    compressor = Compressor(LastFirst(), 0.3)
    assert compressor.selection_used is None
    kept = compressor.select(videos)
    assert kept.keep.tolist() == Compressor("norm", 0.3).select(videos).keep.tolist()
    assert torch.equal(kept.index, LastFirst().select(videos, None, kept.keep.tolist()).index)
    with pytest.raises(ScoreError, match="selection must be None"):
        Compressor(LastFirst(), selection="topk")
    with pytest.raises(ScoreError, match=r"select\(\) must return ascending rows"):
        Compressor(LastFirst(shift=-1), 0.3).select(videos)


def test_a_rule_of_your_own_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="method must be a policy or a name to be saved, got ByNorm"):
        Compressor(ByNorm()).save_pretrained(tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_loaded_from_a_name_with_overrides() -> None:
    assert same(Compressor.from_pretrained("evs", retention=0.3), Compressor("evs", 0.3))
    loaded = Compressor.from_pretrained("pretrained", retention=0.2, selection="topk", seed=None)
    assert same(loaded, Compressor(retention=0.2, selection="topk"))
    assert same(Compressor.from_pretrained("random", seed=3), Compressor(RandomMethod(3)))
    with pytest.raises(TypeError, match="there is no override 'retension'"):
        Compressor.from_pretrained("evs", retension=0.3)


def test_a_policy_alone_is_a_compressor(tmp_path: Path) -> None:
    model = policy()
    model.save_pretrained(tmp_path)
    assert same(Compressor.from_pretrained(tmp_path, retention=0.2), Compressor(model, 0.2))


def test_a_compressor_saved_by_0_1(tmp_path: Path) -> None:
    Compressor("norm", 0.2, "systematic").save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    config = json.loads(file.read_text())
    config["law"] = config.pop("selection")
    file.write_text(json.dumps(config))
    assert same(Compressor.from_pretrained(tmp_path / "old"), Compressor("norm", 0.2, "systematic"))


@pytest.mark.parametrize("saved", [Compressor(policy(), 0.2), Compressor("evs"), Compressor(RandomMethod(7), 0.3)])
def test_a_compressor_saved_by_0_2(tmp_path: Path, saved: Compressor) -> None:
    """Each had a seed, also where nothing is drawn."""
    saved.save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    config = json.loads(file.read_text())
    assert ("seed" in config) == isinstance(saved.method, RandomMethod)
    file.write_text(json.dumps({**config, "seed": 7}))
    assert same(Compressor.from_pretrained(tmp_path / "old"), saved)
    assert Compressor.from_pretrained(tmp_path / "old", seed=8).seed in (None, 8)


def test_a_saved_random_rule_with_an_impossible_seed(tmp_path: Path) -> None:
    Compressor(RandomMethod(7)).save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seed": 0.5}))
    with pytest.raises(ScoreError, match=r"config\.json: seed must be an integer, got 0\.5"):
        Compressor.from_pretrained(tmp_path / "old")


def test_law_is_the_former_name_of_selection() -> None:
    with pytest.warns(DeprecationWarning, match="law is now called selection"):
        assert Compressor("norm", law="systematic").selection == "systematic"


def test_a_policy_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens on another device: a copy goes there, once, and again when the policy has changed."""
    model = policy(token_width=0, state="relative")
    compressor = Compressor(model)
    there = torch.device("meta")
    first = compressor._policy_on(there)
    assert model.device.type == "cpu"
    assert first.device.type == "meta"
    assert compressor._policy_on(there) is first
    with torch.no_grad():
        model.output.bias.add_(1)
    assert compressor._policy_on(there) is not first


def test_a_policy_made_under_inference_mode_goes_to_another_device() -> None:
    """Its parameters keep no count of their changes: asking them for it is an error of torch's."""
    with torch.inference_mode():
        compressor = Compressor(policy(token_width=0, state="relative"))
        first = compressor._policy_on(torch.device("meta"))
        assert first.device.type == "meta"
        moved = compressor._policy_on(torch.device("meta"))
    assert moved is not first and compressor._policy_on(torch.device("meta")).device.type == "meta"
