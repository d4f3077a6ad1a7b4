"""``score eval``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.readers import tiny_reader
from safetensors.torch import load_file, save_file

from score_ext.budget import keep_count
from score_video.cli import main
from score_video.commands.evaluate import find_choice, find_splits, parse_numbers, run
from score_video.compressor import Compressor
from score_video.miniature import environment as miniature
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import choose_by, choose_by_method, encode_split, evaluate
from score_video.miniature.world import SPLITS, TASKS
from score_video.policy import SurprisePolicy, SurprisePolicyConfig


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny reader in the place of the package's, and an empty current directory."""
    path = tmp_path / "reader.safetensors"
    tiny_reader().save(path)
    monkeypatch.setattr(miniature, "shipped_reader", lambda: path)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return path


def policy(folder: str = "policy", **config: Any) -> Path:
    torch.manual_seed(0)
    SurprisePolicy(SurprisePolicyConfig(**{"token_width": 8, **config})).save_pretrained(folder)
    return Path(folder)


def score(*arguments: object) -> int:
    return main(["eval", *map(str, arguments)])


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    before = sorted(Path.cwd().rglob("*"))
    capfd.readouterr()
    assert score("--videos", 4, *arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ") and error.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return error


def test_table_and_json_agree(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--method", "norm", "--split", "lookalike", "--split", "static", "--retention", "0.1,0.02")
    assert score(*arguments, "--videos", 20, "--seed", 3, "--json", "out.json") == 0
    assert [path.name for path in Path().iterdir()] == ["out.json"]
    report = json.loads(Path("out.json").read_text())
    assert report["evaluated"] == "norm"
    assert (report["selection"], report["partition"], report["seed"], report["videos"]) == ("topk", "test", 3, 20)
    assert list(report["splits"]) == ["lookalike", "static"]

    environment = MiniatureEnvironment()
    printed = capfd.readouterr().out
    for split, rows in report["splits"].items():
        assert [row["retention"] for row in rows] == [1.0, 0.02, 0.1]
        batches = encode_split(environment, split, "test", 3, 20)
        full = evaluate(environment, batches, None)
        for row in rows:
            got = full
            if row["retention"] < 1:
                got = evaluate(environment, batches, choose_by_method("norm"), row["retention"])
            assert row["accuracy"] == got.mean
            assert row["standard_error"] == got.standard_error
            assert row["tasks"] == got.by_task
            assert row["share_of_full"] == pytest.approx(got.mean / full.mean)
            assert row["questions"] == int(got.asked.sum())
            assert row["kept"] == 20 * keep_count(16, 36, row["retention"])
            assert f"{100 * got.mean:.1f} ± {100 * got.standard_error:.1f}" in printed
        assert f"{split}: norm, topk; 20 test videos of seed 3, {rows[0]['questions']} questions" in printed
    assert "quadrant" in printed and "order" in printed


def test_a_policy_is_scored_by_the_selection_that_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    folder = policy()
    given = ("--split", "plain", "--videos", 12, "--retention", 0.3)
    for law, expected in ((None, "diverse"), ("diverse", "diverse"), ("systematic", "systematic"), ("topk", "topk")):
        assert score("--policy", folder, *given, "--json", f"{law}.json", *(("--selection", law) if law else ())) == 0
        assert json.loads(Path(f"{law}.json").read_text())["selection"] == expected
    assert Path("None.json").read_text() == Path("diverse.json").read_text()
    assert "the policy policy" in capfd.readouterr().out


def test_a_policy_that_sees_the_question_is_asked_one(capfd: pytest.CaptureFixture[str]) -> None:
    folder = policy(question_width=len(TASKS))
    assert score("--policy", folder, "--split", "plain", "--videos", 5, "--json", "out.json") == 0
    rows = json.loads(Path("out.json").read_text())["splits"]["plain"]
    assert [row["questions"] for row in rows] == [5, 5]


def test_a_policy_for_any_tower() -> None:
    assert score("--policy", policy(state="relative", token_width=0), "--split", "plain", "--videos", 3) == 0


def test_a_compressor_that_chooses_before_the_tower(capfd: pytest.CaptureFixture[str]) -> None:
    """As it does behind its gate; all tokens are those of a tower that has seen all."""
    before = Compressor("random", 0.3)
    Compressor("random", 0.1, before_tower=before, halo=1).save_pretrained("gated")
    rows = {}
    for name, options in {"gated": ["--policy", "gated"], "plain": ["--method", "random"]}.items():
        assert score("--videos", 6, "--retention", "0.1,0.3", "--json", "out.json", *options) == 0
        rows[name] = json.loads(Path("out.json").read_text())
    assert rows["gated"]["before_tower"] == {"method": "random", "retention": 0.3, "halo": 1}
    assert rows["gated"]["evaluated"] == "the policy gated behind random, 30%, halo 1"
    assert "before_tower" not in rows["plain"]
    gated, plain = (of["splits"]["plain"] for of in rows.values())
    assert gated[0] == plain[0]
    assert [row["kept"] for row in gated] == [row["kept"] for row in plain]
    environment = MiniatureEnvironment().behind(Compressor("random", before_tower=before, halo=1).gate)
    batches = encode_split(environment, "plain", "test", 0, 6)
    choose = choose_by(Compressor.from_pretrained("gated"))
    assert gated[1]["accuracy"] == evaluate(environment, batches, choose, 0.1).mean
    assert "--retention must be at most 0.3" in refused(capfd, "--policy", "gated", "--retention", 0.5)


def test_what_is_taken_when_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert score("--videos", 2, "--split", "plain") == 0
    printed = capfd.readouterr().out
    assert "plain: the pretrained policy, diverse; 2 test videos of seed 0" in printed
    assert " 10% " in printed
    assert find_splits([], footage=False) == [name for name in SPLITS if name != "footage"]
    assert find_splits([], footage=True) == list(SPLITS)


def test_footage(clip: Path) -> None:
    assert score("--split", "footage", "--footage", clip, "--videos", 2, "--method", "oracle") == 0


def test_other_seeds_are_other_videos() -> None:
    environment = MiniatureEnvironment()
    choice = find_choice(None, "uniform", None, 0, environment)
    reports = [run(environment, choice, ["plain"], [0.1], 12, seed)["splits"] for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]


def test_progress_reaches_the_end() -> None:
    environment = MiniatureEnvironment()
    told: list[tuple[str, int, int]] = []
    run(environment, find_choice(None, "norm", None, 0, environment), ["plain", "long"], [0.1], 17, 0,
        lambda *step: told.append(step))  # fmt: skip
    assert told == [("plain", 0, 17), ("plain", 17, 17), ("long", 0, 17), ("long", 16, 17), ("long", 17, 17)]


@pytest.mark.parametrize(
    ("given", "numbers"),
    [(["0.1"], [0.1]), (["0.1,0.02", "1"], [0.02, 0.1, 1.0]), (["0.5", " 0.5 "], [0.5])],
)
def test_retentions(given: list[str], numbers: list[float]) -> None:
    assert parse_numbers(given) == numbers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "plane"], "there is no split 'plane'; there are plain, lookalike"),
        (["--split", "footage"], "give --footage VIDEO"),
        (["--split", "plain", "--footage", "x.mp4"], "--footage is for the split footage, got plain"),
        (["--split", "footage", "--footage", "x.mp4"], "x.mp4: No such file"),
        (["--method", "sorprise"], "there is no method 'sorprise'; there are surprise, "),
        (["--method", "norm", "--policy", "x"], "--policy or --method, not both"),
        (["--policy", "nowhere"], "nowhere: is neither a folder nor the id"),
        (["--selection", "lottery"], "selection must be 'systematic', 'topk', 'diverse' or None, got 'lottery'"),
        (["--method", "vidcom2", "--selection", "topk"], "'vidcom2', which selects by a rule of its own"),
        (["--method", "oracle", "--selection", "topk"], "oracle selects by a rule of its own"),
        (["--retention", "0"], "retention"),
        (["--retention", "0.1,much"], "retention must be a number in (0, 1], got 'much'"),
        (["--retention", "nan"], "retention"),
        (["--videos", "0"], "videos"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_what_is_refused(capfd: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert said in refused(capfd, *options)


def test_policies_that_do_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    assert "for tokens of width 5, the miniature's have 8" in refused(capfd, "--policy", policy("a", token_width=5))
    assert "for questions of width 3" in refused(capfd, "--policy", policy("b", question_width=3))


def test_folders_that_hold_no_policy(capfd: pytest.CaptureFixture[str], shipped: Path) -> None:
    Path("empty").mkdir()
    assert "holds no config.json" in refused(capfd, "--policy", "empty")
    folder = policy("damaged")
    weights = load_file(folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-40])
    assert "model.safetensors" in refused(capfd, "--policy", folder)
    for changed in (
        {**weights, "more": torch.zeros(1)},
        {name: weight for name, weight in weights.items() if name != "output.bias"},
        {**weights, "output.weight": torch.zeros(1, 5)},
    ):
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
        assert "another policy" in refused(capfd, "--policy", folder)
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refused(capfd, "--policy", folder)
    Compressor("norm").save_pretrained("compressor")
    (Path("compressor") / "model.safetensors").write_bytes(whole)
    assert score("--policy", "compressor", "--split", "plain", "--videos", "2") == 0  # a rule that was saved
    shipped.unlink()
    assert "there are no weights of a reader" in refused(capfd)


def test_json_is_all_or_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    given = ("--split", "plain", "--json")
    assert "the folder it should be made in does not exist" in refused(capfd, *given, "nowhere/out.json")
    Path("folder").mkdir()
    assert "is a folder" in refused(capfd, *given, "folder")
    Path("out.json").write_text("old")
    assert score("--videos", 2, *given, "out.json") == 0
    assert json.loads(Path("out.json").read_text())["videos"] == 2
