"""What a run leaves behind, read back by the libraries that users read it with."""

import json
import math
import os
import pty
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # it has no types
    EventAccumulator,
)

import model.run_log
from model.run_log import EVENTS, LOG, RunLog, read_records

Numbers = dict[str, float | int]


def numbers(step: int) -> Numbers:
    return {"mlm": 10 / step, "cls": 9 / step, "norm": 1.5, "tokens_s": 3000 + step}


def train(folder: Path, *, to: int, done: int = 0, steps: int = 10) -> None:
    """Log steps after `done` as a loop does, with a measurement each third step."""
    with RunLog(folder, steps=steps, done=done, title="pretrain") as log:
        for step in range(done + 1, to + 1):
            log.write(step, numbers(step))
            if step % 3 == 0:
                log.measured(step, "dev", {"fused": step / 10, "cls": step / 20})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every tag that TensorBoard shows, with steps and values."""
    events = EventAccumulator(str(folder / EVENTS), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the two optional libraries."""
    for library in ("tensorboard", "matplotlib"):
        monkeypatch.setitem(sys.modules, library, None)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, shown: list[str]) -> Iterator[None]:
    """A real terminal as standard error; `shown` gets what it was sent."""
    reader, writer = pty.openpty()
    with ThreadPoolExecutor(1) as pool:  # a terminal takes few bytes before somebody looks
        looking = pool.submit(_look, reader)
        with os.fdopen(writer, "w") as standard_error, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", standard_error)
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", "120")
            yield
        shown.append(looking.result())
    os.close(reader)


def _look(terminal: int) -> str:
    shown = b""
    with suppress(OSError):  # what reading gives on Linux once the other side is closed
        while chunk := os.read(terminal, 4096):
            shown += chunk
    return shown.decode()


def test_each_step_is_on_disk_before_the_next(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", steps=5, title="pretrain") as log:
        for step in (1, 2):
            log.write(step, numbers(step))
            assert [record["step"] for record in read_records(tmp_path / "run" / LOG)] == list(range(1, step + 1))
            assert [at for at, _ in scalars(tmp_path / "run")["train/mlm"]] == list(range(1, step + 1))


def test_the_log_holds_steps_and_measurements_as_json_lines(tmp_path: Path) -> None:
    train(tmp_path, to=3)
    assert [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()] == [
        {"step": 1, "mlm": 10.0, "cls": 9.0, "norm": 1.5, "tokens_s": 3001},
        {"step": 2, "mlm": 5.0, "cls": 4.5, "norm": 1.5, "tokens_s": 3002},
        {"step": 3, "mlm": 3.333333, "cls": 3.0, "norm": 1.5, "tokens_s": 3003},
        {"step": 3, "dev": {"fused": 0.3, "cls": 0.15}},
    ]


def test_tensorboard_shows_steps_and_measurements(tmp_path: Path) -> None:
    train(tmp_path, to=4)
    shown = scalars(tmp_path)
    assert shown["train/tokens_s"] == [(1, 3001), (2, 3002), (3, 3003), (4, 3004)]
    assert shown["dev/fused"] == [(3, float(np.float32(0.3)))]
    assert shown.keys() == {"train/mlm", "train/cls", "train/norm", "train/tokens_s", "dev/fused", "dev/cls"}


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, steps=1, title="pretrain") as log:
        log.write(1, {"mlm": math.nan, "cls": math.inf, "bow": 1.0})
        log.measured(1, "dev", {"fused": -math.inf})
    first, second = (tmp_path / LOG).read_text().splitlines()
    assert first == '{"step": 1, "mlm": null, "cls": null, "bow": 1.0}'
    assert second == '{"step": 1, "dev": {"fused": null}}'


def test_a_resumed_run_leaves_what_an_unbroken_one_leaves(tmp_path: Path) -> None:
    unbroken, resumed = tmp_path / "unbroken", tmp_path / "resumed"
    train(unbroken, to=10)
    train(resumed, to=7)  # its state is that after step 5
    with (resumed / LOG).open("a") as log:
        log.write('{"step": 8, "ml')
    train(resumed, to=10, done=5)
    assert (resumed / LOG).read_bytes() == (unbroken / LOG).read_bytes()
    assert scalars(resumed) == scalars(unbroken)


@pytest.mark.usefixtures("bare")
def test_wherever_the_log_was_cut_a_resumed_run_mends_it(tmp_path: Path) -> None:
    train(tmp_path, to=6)
    whole = (tmp_path / LOG).read_bytes()
    behind = b"".join(whole.splitlines(keepends=True)[:3])
    for cut in range(len(behind), len(whole), 3):
        (tmp_path / LOG).write_bytes(whole[:cut])
        train(tmp_path, to=6, done=2)
        assert (tmp_path / LOG).read_bytes() == whole


def test_a_new_run_forgets_the_one_before(tmp_path: Path) -> None:
    train(tmp_path, to=6)
    with RunLog(tmp_path, steps=2, title="finetune") as log:
        log.write(1, {"fused": 2.0})
    assert (tmp_path / LOG).read_text() == '{"step": 1, "fused": 2.0}\n'
    assert scalars(tmp_path) == {"train/fused": [(1, 2.0)]}
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["loss.png"]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ValueError])
def test_a_run_that_is_broken_off_leaves_all_it_has(tmp_path: Path, reason: type[BaseException]) -> None:
    def broken_off() -> None:
        with RunLog(tmp_path, steps=10, title="pretrain") as log:
            log.write(1, numbers(1))
            log.measured(1, "dev", {"fused": 0.5})
            raise reason

    with pytest.raises(reason):
        broken_off()
    assert len(list(read_records(tmp_path / LOG))) == 2
    assert scalars(tmp_path)["train/mlm"] == [(1, 10.0)]
    assert {path.name for path in tmp_path.glob("*.png")} == {"loss.png", "other.png", "dev.png"}


@pytest.mark.usefixtures("bare")
def test_a_missing_library_is_named_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, to=3)
    said = capsys.readouterr().err.splitlines()[:2]
    assert said == [
        "matplotlib is not installed, so there will be no plots: pip install 'dupmae-search[train]'",
        "tensorboard is not installed, so there will be no TensorBoard events: pip install 'dupmae-search[train]'",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


@pytest.mark.usefixtures("bare")
def test_a_file_gets_some_plain_lines_and_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    train(tmp_path, to=200, steps=200)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("pretrain")]
    assert lines[0].startswith("pretrain 1/200 mlm 10.000 cls 9.000 3,001 tokens/s ")
    assert lines[-1] == "pretrain 200/200 mlm 0.050 cls 0.045 3,200 tokens/s 0:00:00 left"
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, *range(10, 201, 10)]
    assert "dev after step 3: fused 0.300 cls 0.150" in captured.err
    assert captured.err.replace("\n", "").isprintable()
    assert not captured.out


@pytest.mark.usefixtures("bare")
def test_a_slow_run_is_not_silent_for_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10_000, 40))
    monkeypatch.setattr(model.run_log, "monotonic", lambda: next(now))
    with RunLog(tmp_path, steps=1000, title="pretrain") as log:
        for step in range(1, 6):
            log.write(step, {"mlm": 1.0})
    lines = capsys.readouterr().err.splitlines()[2:]
    assert lines == [
        f"pretrain {step}/1000 mlm 1.000 {left} left"
        for step, left in ((1, "11:06:00"), (3, "11:04:40"), (5, "11:03:20"))
    ]


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    with terminal(monkeypatch, shown):
        train(tmp_path, to=10)
    assert "\x1b[?25l" in shown[0]  # the cursor is hidden while the bar moves
    assert "\x1b[?25h" in shown[0]  # and there again afterwards
    assert "10/10" in shown[0]
    assert "mlm 1.000 cls 0.900 3,010 tokens/s" in shown[0]
    assert "dev after step 9: fused 0.900 cls 0.450" in shown[0]


def test_a_bar_shows_the_losses_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = dict.fromkeys(("distill", "accuracy", "ot", "cls", "fused", "total"), 1.0)
    shown: list[str] = []
    with terminal(monkeypatch, shown), RunLog(tmp_path, steps=1, title="finetune") as log:
        log.write(1, losses)
    assert "total 1.000 fused 1.000 cls 1.000 ot 1.000 " in shown[0]
    assert "distill" not in shown[0]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    with terminal(monkeypatch, shown):
        monkeypatch.setenv("TERM", "dumb")
        train(tmp_path, to=2)
    assert "pretrain 2/10 mlm 5.000 cls 4.500" in shown[0]
    assert "\x1b" not in shown[0]
