"""SurprisePolicy: its state, gradients, initialisation, question, saving, and what it refuses."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.packs import RAGGED, random_frames, random_videos
from torch import Tensor

from score_ext import reference
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, expected_count
from score_video.policy.change import change_features
from score_video.policy.position import POSITION_WIDTH, position_features
from score_video.policy.relative import TEMPORAL_WIDTH, relative_state
from score_video.policy.seen import seen_features
from score_video.whitened import whitened

WHITENED = {"state": "relative", "use_whitened": True}
WHITENED_ALONE = WHITENED | {"use_token": False, "use_residual": False}
PARTS = [(t, r, p) for t in (True, False) for r in (True, False) for p in (True, False) if t or r or p]


def policy(**options: Any) -> SurprisePolicy:
    torch.manual_seed(0)
    return SurprisePolicy(SurprisePolicyConfig(**{"token_width": 6, **options}))


def layers(model: SurprisePolicy) -> list[tuple[Tensor, Tensor]]:
    return [(layer.weight, layer.bias) for layer in (*model.hidden, model.output)]


@pytest.mark.parametrize(("token", "residual", "position"), PARTS)
def test_residual_state_equals_reference(token: bool, residual: bool, position: bool) -> None:
    videos = random_videos()
    model = policy(use_token=token, use_residual=residual, use_position=position)
    assert model.hidden[0].in_features == 6 * (token + residual) + 2 * residual + POSITION_WIDTH * position
    others = [change_features(videos)] * residual + [position_features(videos)] * position
    expected = reference.policy_logits(
        videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, layers(model),
        torch.cat(others, dim=1) if others else None, token, residual,
    )  # fmt: skip
    torch.testing.assert_close(model(videos), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("change", [True, False])
def test_a_first_frame_may_be_its_own_change(token: bool, position: bool, change: bool) -> None:
    """As if a frame of zeros came before each video."""
    videos = random_videos()
    model = policy(use_token=token, use_position=position, use_change=change, first_residual="token")
    grids = list(zip(videos.lengths.tolist(), videos.tokens_per_frame.tolist(), videos.columns.tolist(), strict=True))
    pieces = videos.tokens.split(videos.lengths.tolist())
    behind_zeros = PackedVideos.from_grids(
        torch.cat([torch.cat([piece.new_zeros(n, 6), piece]) for piece, (_, n, _) in zip(pieces, grids, strict=True)]),
        [(length // n + 1, n // columns, columns) for length, n, columns in grids],
    )
    own = ~behind_zeros.in_first_frame
    others = [change_features(videos)] * change + [position_features(videos)] * position
    features = None
    if others:
        features = torch.zeros(len(own), torch.cat(others, dim=1).shape[1])
        features[own] = torch.cat(others, dim=1)
    sizes = behind_zeros.cu_seqlens, behind_zeros.tokens_per_frame
    expected = reference.policy_logits(behind_zeros.tokens, *sizes, layers(model), features, token)
    torch.testing.assert_close(model(videos), expected[own], rtol=1e-4, atol=1e-5)

    weights = list(model.parameters())
    got, want = (
        torch.autograd.grad((of * torch.arange(len(of))).sum(), weights) for of in (model(videos), expected[own])
    )
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("token", "residual", "position"), PARTS)
def test_relative_state_equals_reference(token: bool, residual: bool, position: bool) -> None:
    videos = random_videos()
    model = policy(token_width=0, state="relative", use_token=token, use_residual=residual, use_position=position)
    relative = relative_state(videos)
    parts = [relative[:, :TEMPORAL_WIDTH]] * residual + [relative[:, TEMPORAL_WIDTH:]] * token
    parts += [position_features(videos)] * position
    x = torch.cat(parts, dim=1)
    for weight, bias in layers(model)[:-1]:
        x = torch.nn.functional.gelu(x @ weight.T + bias)
    torch.testing.assert_close(model(videos), (x @ model.output.weight.T + model.output.bias)[:, 0])


@pytest.mark.parametrize("more", [False, True], ids=["", "seen and question"])
@pytest.mark.parametrize(
    "parts",
    [(True, True, True), (False, True, False), (True, False, True), (False, False, True), (False, False, False)],
)
def test_state_of_whitened_tokens(parts: tuple[bool, bool, bool], more: bool) -> None:
    """Beside the relative state, or in its place, there is that of the tokens as they are whitened, whole."""
    videos = random_videos()
    named: dict[str, Any] = dict(zip(("use_token", "use_residual", "use_position"), parts, strict=True))
    if more:
        named |= {"use_seen": True, "question_width": 3}
    model = policy(token_width=0, state="relative", use_whitened=True, **named)
    relative = relative_state(videos)
    white = relative_state(replace(videos, tokens=whitened(videos.tokens, videos.cu_seqlens)))
    columns = [relative[:, :TEMPORAL_WIDTH]] * parts[1] + [relative[:, TEMPORAL_WIDTH:]] * parts[0]
    columns += [position_features(videos)] * parts[2] + [seen_features(videos, None)] * more + [white]
    question = torch.randn(videos.num_videos, 3) if more else None
    if question is not None:
        asked = model.question(torch.nn.functional.layer_norm(question, (3,)))
        columns.append(asked[videos.video_of_token])
    x = torch.cat(columns, dim=1)
    assert x.shape[1] == model.hidden[0].in_features
    for weight, bias in layers(model)[:-1]:
        x = torch.nn.functional.gelu(x @ weight.T + bias)
    torch.testing.assert_close(model(videos, question), (x @ model.output.weight.T + model.output.bias)[:, 0])


def test_relative_policy_takes_any_width() -> None:
    model = policy(token_width=0, state="relative")
    narrow = random_videos(width=6)
    tokens = torch.cat([narrow.tokens, torch.zeros(len(narrow.tokens), 3)], dim=1)
    wide = PackedVideos(tokens, narrow.cu_seqlens, narrow.tokens_per_frame, narrow.columns)
    torch.testing.assert_close(model(wide), model(narrow), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"hidden_sizes": [5]}, {"state": "relative"}, {"question_width": 3}, WHITENED, WHITENED_ALONE]
)
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    model = policy(**options)
    question = torch.randn(len(RAGGED), 3) if options.get("question_width") else None
    logits = model(random_videos(), question)
    (logits * torch.linspace(-1, 2, len(logits))).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def test_gradients_of_the_question() -> None:
    """Against finite differences, in a direction of every layer at once."""
    model = policy(question_width=3)
    videos, question = random_videos(), torch.randn(len(RAGGED), 3)
    weight = torch.randn(len(videos.tokens))
    (model(videos, question) * weight).sum().backward()
    directions = [torch.randn_like(parameter) for parameter in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True))
    values = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter += step * direction
            values.append(float((model(videos, question) * weight).double().sum()))
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter -= step * direction
    assert slope == pytest.approx((values[0] - values[1]) / 2e-3, rel=2e-2)


def test_question_belongs_to_its_video() -> None:
    model, videos = policy(question_width=3), random_videos()
    question = torch.randn(len(RAGGED), 3)
    other = question.clone()
    other[3] = torch.randn(3)
    changed = model(videos, question) != model(videos, other)
    begin, end = videos.cu_seqlens[3:5].tolist()
    assert changed[begin:end].all()
    assert changed.sum() == end - begin


@pytest.mark.parametrize("options", [{}, {"state": "relative"}, WHITENED])
def test_a_video_alone_or_in_a_batch(options: dict[str, Any]) -> None:
    model = policy(**options)
    alone = [model(PackedVideos.from_frames([random_frames(s, 6, i)])) for i, s in enumerate(RAGGED)]
    torch.testing.assert_close(torch.cat(alone), model(random_videos()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("retention", [0.1, 0.5])
@pytest.mark.parametrize("state", ["residual", "relative"])
def test_begins_at_the_initial_retention(state: str, retention: float) -> None:
    videos = random_videos(((8, 6, 6),), width=32)
    logits = policy(token_width=32, state=state, initial_retention=retention)(videos).detach()
    assert float(logits.mean()) == pytest.approx(math.log(retention / (1 - retention)), abs=0.1)
    assert 0.005 < logits.std() < 0.2
    assert float(expected_count(logits, videos)) == pytest.approx(288 * retention, rel=0.1)


def test_expected_count() -> None:
    videos = random_videos()
    logits = torch.linspace(-3, 3, len(videos.tokens), requires_grad=True)
    counts = expected_count(logits, videos)
    ends = videos.cu_seqlens.tolist()
    by_hand = [float(logits[a:b].detach().sigmoid().sum()) for a, b in itertools.pairwise(ends)]
    assert counts.dtype == torch.float32
    assert counts.tolist() == pytest.approx(by_hand)
    assert counts[1] == 0
    counts.sum().backward()
    torch.testing.assert_close(logits.grad, (logits.sigmoid() * (1 - logits.sigmoid())).detach())
    with pytest.raises(ValueError, match=r"logits must be \[.*\], one for each token, got \[3\]"):
        expected_count(torch.zeros(3), videos)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_of_tokens_and_parameters(dtype: torch.dtype) -> None:
    model, videos = policy(question_width=3), random_videos(dtype=dtype)
    question = torch.randn(len(RAGGED), 3)
    wide = PackedVideos(videos.tokens.float(), videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    logits = model(videos, question.to(dtype))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(wide, question.to(dtype).float()))
    torch.testing.assert_close(model.to(dtype)(videos, question).float(), logits, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "options", [{}, {"state": "relative", "hidden_sizes": [7], "use_token": False}, {"question_width": 3}]
)
def test_saved_and_loaded(tmp_path: Path, options: dict[str, Any]) -> None:
    model = policy(**options)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = SurprisePolicy.from_pretrained(tmp_path)
    assert again.config == model.config
    assert not again.training
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    question = torch.randn(len(RAGGED), 3) if "question_width" in options else None
    assert torch.equal(again(random_videos(), question), model(random_videos(), question))


def test_a_policy_saved_by_0_1(tmp_path: Path) -> None:
    """config.json was transformers' then, with keys of its own."""
    model = policy(hidden_sizes=[5])
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["SurprisePolicy"], "dtype": "float32", "transformers_version": "5.23.0"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "use_cache": False}))
    assert SurprisePolicy.from_pretrained(tmp_path).config == model.config


def test_the_policy_of_a_compressor(tmp_path: Path) -> None:
    Compressor(policy()).save_pretrained(tmp_path / "compressor")
    again = SurprisePolicy.from_pretrained(tmp_path / "compressor")
    assert torch.equal(again(random_videos()), policy()(random_videos()))
    Compressor("evs").save_pretrained(tmp_path / "rule")
    with pytest.raises(ScoreError, match="model_type must be 'score_policy', got 'score_compressor'"):
        SurprisePolicy.from_pretrained(tmp_path / "rule")


def test_weights_that_are_missing_are_an_error(tmp_path: Path) -> None:
    model = policy()
    state = {name: weight for name, weight in model.state_dict().items() if not name.startswith("output")}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ScoreError, match=r"model\.safetensors holds the weights of another policy: .*output\.weight"):
        SurprisePolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"token_width": 0}, ValueError, "token_width must be at least 1, got 0"),
        ({"token_width": 6.0}, TypeError, r"token_width must be an integer, got 6\.0"),
        ({"state": "both"}, ValueError, "state must be 'residual' or 'relative', got 'both'"),
        ({"hidden_sizes": []}, ValueError, r"hidden_sizes must be a list of one or two sizes, got \[\]"),
        ({"hidden_sizes": [4, 4, 4]}, ValueError, "hidden_sizes must be a list of one or two sizes"),
        ({"hidden_sizes": [0]}, ValueError, "hidden_sizes must be at least 1, got 0"),
        ({"use_whitened": True}, ValueError, "use_whitened must be False with state 'residual', got True"),
        ({"use_whitened": None}, TypeError, "use_whitened must be a bool, got None"),
        ({"use_token": 1}, TypeError, "use_token must be a bool, got 1"),
        ({"question_width": -1}, ValueError, "question_width must be at least 0, got -1"),
        ({"distance_weight": 0.0}, ValueError, r"distance_weight must be above 0 and finite, got 0\.0"),
        ({"distance_weight": math.nan}, ValueError, "distance_weight must be above 0 and finite, got nan"),
        ({"distance_weight": True}, TypeError, "distance_weight must be a number, got True"),
        ({"initial_retention": 1.0}, ValueError, r"initial_retention must lie between 0 and 1, got 1\.0"),
        ({"initial_retention": math.nan}, ValueError, "initial_retention must lie between 0 and 1, got nan"),
        ({"initial_retention": "0.1"}, TypeError, "initial_retention must be a number, got '0.1'"),
        ({"use_residul": False}, TypeError, "use_residul"),
        ({"use_token": False, "use_residual": False, "use_position": False}, ValueError, "the state is empty"),
    ],
)
def test_wrong_config(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SurprisePolicyConfig(**{"token_width": 6, **options})


def test_hidden_sizes_are_not_shared() -> None:
    SurprisePolicyConfig(token_width=6).hidden_sizes.append(3)
    assert SurprisePolicyConfig(token_width=6).hidden_sizes == [64, 64]


def test_wrong_input() -> None:
    videos, question = random_videos(), torch.randn(len(RAGGED), 3)
    with pytest.raises(ValueError, match=r"tokens must be \[L, 8\], the token_width of this policy, got \[92, 6\]"):
        policy(token_width=8)(videos)
    with pytest.raises(ValueError, match="question must be None: this policy does not see it"):
        policy()(videos, question)
    with pytest.raises(ValueError, match=r"question must be \[6, 3\] for this policy, got None"):
        policy(question_width=3)(videos)
    with pytest.raises(ValueError, match=r"question must be \[6, 3\], got \[5, 3\]"):
        policy(question_width=3)(videos, question[1:])


@pytest.mark.parametrize("options", [{}, {"state": "relative"}, WHITENED])
def test_no_tokens_at_all(options: dict[str, Any]) -> None:
    videos = random_videos(((0, 2, 2),))
    model = policy(**options)
    assert model(videos).shape == (0,)
    assert expected_count(model(videos), videos).tolist() == [0]
