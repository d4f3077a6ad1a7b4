"""What is compared: from a file, a protocol, options; and the runs that come of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TextIO

import pytest

from score_video.benchmarks.config import comparison, read_config
from score_video.benchmarks.protocols import PROTOCOLS, QUESTIONS
from score_video.benchmarks.runs import FULL, Settings, plan, run_all
from score_video.cli import main
from score_video.errors import ScoreError
from score_video.methods import METHODS

SETTINGS = Settings(("own",))


def test_plan() -> None:
    runs = plan(["a", "b"], ["evs", "divprune"], [0.1, 0.2])
    assert len(runs) == 2 * (1 + 4)
    assert [run.retention for run in runs if run.compressor == FULL] == [None, None]
    other = Settings(("own",), "max_num_frames=8")
    folders = {run.folder(settings, Path("out")) for run in runs for settings in (SETTINGS, other)}
    assert len(folders) == 2 * len(runs)
    for compressors, wrong in ((["evs", "evs"], "got evs twice"), (["a,b"], "no comma"), ([FULL], "got none")):
        with pytest.raises(ScoreError, match=wrong):
            plan(["a"], compressors, [0.1])


def test_what_has_changed_under_a_name_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that was trained further in its folder, a rule that was edited: what was run before is not theirs."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    weights, rules = tmp_path / "policy" / "model.safetensors", tmp_path / "my_own_rules.py"
    weights.write_bytes(b"first")
    rules.write_text("mine = 1")
    runs = plan(["m"], ["policy", "my_own_rules:mine", "evs"], [0.1])[1:]
    before = [run.folder(SETTINGS, tmp_path) for run in runs]
    assert before == [run.folder(SETTINGS, tmp_path) for run in runs]
    weights.write_bytes(b"second")
    rules.write_text("mine = 22")
    changed = [run.folder(SETTINGS, tmp_path) != folder for run, folder in zip(runs, before, strict=True)]
    assert changed == [True, True, False]


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text("model: m\ntask: [own, other]\nretention: [0.1, 1]\nlimit: 3\ncompressor:\n", encoding="utf-8")
    config = read_config(file)
    assert config == {"model": ["m"], "task": ["own", "other"], "retention": [0.1, 1.0], "limit": 3}
    chosen = comparison(config)
    assert chosen.settings == Settings(("own", "other"), limit=3)
    assert [(run.compressor, run.retention) for run in chosen.runs[1:]] == [("pretrained", 0.1), ("pretrained", 1.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: [m]", "there is no key 'models'; there are model, task"),
        ("limit: many", "limit must be of type int, got 'many'"),
        ("retention: [0.1, true]", "retention must be of type float, got True"),
        ("- a", "must be a mapping"),
        ("model: [", "not YAML"),
    ],
)
def test_files_that_cannot_be(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ScoreError, match=says):
        read_config(file)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": ["own"]}, "--model must be given"),
        ({"model": ["m"]}, "--task must be given"),
        ({"model": ["m"], "task": ["own"], "retention": [0.0]}, r"above 0 and at most 1, got 0\.0"),
        ({"model": ["m"], "task": ["own"], "limit": 0}, "limit must be at least 1, got 0"),
        ({"protocol": "other"}, "protocol must be one of llava-onevision-7b-32, .* got 'other'"),
    ],
)
def test_comparisons_that_cannot_be(given: dict[str, object], says: str) -> None:
    with pytest.raises(ScoreError, match=says):
        comparison(given)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols(name: str) -> None:
    protocol = PROTOCOLS[name]
    chosen = comparison({"protocol": name})
    assert len(chosen.runs) == 1 + len(protocol.compressors) * 7
    assert chosen.settings.model_args == f"max_num_frames={protocol.frames}"
    assert set(protocol.compressors) - set(METHODS) <= {"pretrained", "resize", "fewer-frames"}
    assert set(protocol.tasks) == set(QUESTIONS)
    if protocol.published is not None:
        shares = protocol.published.share_of_full.values()
        assert {len(row) for row in shares} == {len(protocol.published.retentions)}
        assert set(protocol.published.tasks) == set(protocol.published.full) <= set(protocol.tasks)


def test_options_replace_a_protocols_own() -> None:
    given = {"protocol": "qwen2.5-vl-3b-32", "compressor": ["evs"], "model_args": "fps=1", "model": ["here/other"]}
    chosen = comparison(given)
    assert {run.compressor for run in chosen.runs} == {FULL, "evs"}
    assert chosen.settings.model_args == "max_num_frames=32,fps=1"
    assert chosen.protocol is None  # its figures are of another model
    same = comparison({**given, "model": ["/data/Qwen2.5-VL-3B-Instruct"]}).protocol
    assert same is not None
    assert same.published is not None


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text("model: nowhere\ntask: [own, other]\ncompressor: evs\n", encoding="utf-8")
    arguments = ["bench", "--config", str(file), "--output", str(tmp_path / "out"), "--limit", "2", "--dry-run"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    full, some = (shlex.split(line) for line in lines[lines.index("Commands:") + 1 :])
    assert "pretrained=nowhere,compressor=none" in full
    assert "pretrained=nowhere,compressor=evs,retention=0.1" in some
    assert some[some.index("--tasks") + 1] == "own,other"
    assert some[some.index("--limit") + 1] == "2"
    assert not (tmp_path / "out").exists()


def test_a_half_written_run_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is an error where it is no better then, not a bug."""
    run = plan(["m"], ["evs"], [0.1])[1]
    folder = run.folder(SETTINGS, tmp_path)
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "1_results.json").write_text('{"results": ', encoding="utf-8")
    began = []

    def write_half_again(command: list[str], stdout: TextIO, **options: object) -> None:
        began.append(command)
        stdout.write("| ERROR | Error during evaluation: the disk is full. Please set `--verbosity=DEBUG` to get more.")
        assert not (folder / "m").exists()
        (folder / "m").mkdir()
        (folder / "m" / "1_results.json").write_text('{"results": ', encoding="utf-8")

    monkeypatch.setattr("score_video.benchmarks.runs.subprocess.run", write_half_again)
    results, errors = run_all([run], SETTINGS, tmp_path, lambda line: None)
    assert len(began) == 1
    assert results == {}
    assert "results are not whole" in errors[run]
    assert "(the disk is full); see " in errors[run]
