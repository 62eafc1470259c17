from pathlib import Path

import pytest

from service import settings
from service.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_variable_sets_the_field_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPMAE_PORT", "9001")
    assert settings.load().port == 9001


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DUPMAE_PORT=9001\nDUPMAE_HOST=0.0.0.0\n")
    monkeypatch.setenv("DUPMAE_PORT", "9002")
    loaded = settings.load()
    assert (loaded.host, loaded.port) == ("0.0.0.0", 9002)


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPMAE_QDRANT_URL", "")
    assert settings.load().qdrant_url is None


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPMAE_PROT", "9001")
    with pytest.raises(SettingsError, match="unknown setting DUPMAE_PROT; did you mean DUPMAE_PORT"):
        settings.load()


def test_an_unknown_name_in_the_env_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DUPMAE_MAX_QUEUES=3\n")
    with pytest.raises(SettingsError, match="unknown setting DUPMAE_MAX_QUEUES; did you mean DUPMAE_MAX_QUEUE"):
        settings.load()


def test_keys_of_other_tools_in_the_env_file_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=gpu\nDUPMAE_PORT=9001\n")
    assert settings.load().port == 9001


def test_a_value_that_is_not_allowed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPMAE_PORT", "http")
    with pytest.raises(SettingsError, match=r"DUPMAE_PORT: .*integer.* not 'http'"):
        settings.load()


def test_the_table_has_a_described_row_for_every_setting() -> None:
    rows = settings.table()
    assert [row.name for row in rows] == [f"DUPMAE_{name.upper()}" for name in Settings.model_fields]
    assert all(row.type and row.description for row in rows)


def test_the_table_shows_choices_and_defaults() -> None:
    rows = {row.name: row for row in settings.table()}
    assert rows["DUPMAE_PROVIDER"].type == "cpu or cuda"
    assert rows["DUPMAE_LOG_QUERIES"].default == "false"
    assert rows["DUPMAE_QDRANT_URL"].default == ""
