"""Every committed picture has data to be drawn from, and drawing it again gives the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from runs.figures import FIGURES, draw
from runs.results import Truncation
from runs.thin_log import thin
from tests.model.test_plots import colours

BIGGEST = 60_000
NAMES = {"truncation.json": {"quality-bytes.png", "quality-time.png"}, "balance.json": {"balance.png"}}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    shutil.copytree(FIGURES / "data", folder / "data")
    draw(folder)
    return folder


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def test_the_committed_data_redraws_the_committed_pictures(drawn: Path) -> None:
    assert pictures(drawn) == pictures(FIGURES)
    assert pictures(drawn) > {"quality-bytes.png", "balance.png", "limits.png"}
    for path in FIGURES.glob("*.png"):
        with Image.open(path) as committed, Image.open(drawn / path.name) as again:
            assert committed.size == again.size


def test_pictures_are_small_and_the_same_every_time(drawn: Path) -> None:
    before = {path: path.read_bytes() for path in drawn.glob("*.png")}
    assert {path: path.read_bytes() for path in draw(drawn)} == before
    assert all(len(content) < BIGGEST for content in before.values())


def test_a_picture_without_data_goes_and_the_others_stay(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "figures")
    for name, gone in NAMES.items():
        before = pictures(tmp_path / "figures")
        (tmp_path / "figures/data" / name).unlink()
        draw(tmp_path / "figures")
        assert before - pictures(tmp_path / "figures") == gone


def test_no_data_gives_no_picture(tmp_path: Path) -> None:
    assert draw(tmp_path) == []


def test_an_ablation_may_have_figures_without_intervals_and_sides_that_were_not_measured(tmp_path: Path) -> None:
    fused = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rows: list[dict[str, Any]] = [
        {"group": "pre-training", "row": "both decoders", "ndcg": {"fused": fused, "cls": 0.3, "ot": fused}},
        {"group": "score", "row": "fused", "ndcg": {"fused": 0.5}},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ablation.json").write_text(json.dumps(rows))
    assert [path.name for path in draw(tmp_path)] == ["ablation.png"]
    assert colours(tmp_path / "ablation.png") == {"#009E73", "#D55E00"}  # of fused there is the lighter bar


def test_a_thinned_log_becomes_the_pictures_of_its_run(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"step": step, "fused": 9 / step, "tokens_s": 1.0} for step in range(1, 1001)]
    records.insert(500, {"step": 500, "dev": {"fused": 0.5}})
    thinned = list(thin(records, 100))
    assert len(thinned) == 101
    assert thinned[50] == {"step": 500, "dev": {"fused": 0.5}}
    assert thinned[0] == {"step": 10, "fused": pytest.approx(sum(9 / step for step in range(1, 11)) / 10)}
    log = tmp_path / "data/logs/stage/log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps(record) + "\n" for record in thinned))
    assert pictures(tmp_path) == set()
    assert {path.name for path in draw(tmp_path)} == pictures(tmp_path) == {"loss-stage.png", "dev-stage.png"}


def test_a_missing_number_stays_missing_only_where_the_whole_block_lacks_it() -> None:
    records: list[dict[str, Any]] = [
        {"step": 1, "mlm": None},
        {"step": 2, "mlm": None},
        {"step": 3, "mlm": 1.0},
        {"step": 4, "mlm": None},
    ]
    assert [record["mlm"] for record in thin(records, 2)] == [None, 1.0]


def test_data_of_another_shape_is_an_error_and_no_picture(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/truncation.json").write_text('{"rows": []}')
    with pytest.raises(ValidationError, match=Truncation.__name__):
        draw(tmp_path)
