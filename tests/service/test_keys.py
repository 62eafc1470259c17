"""Keys in their file and in a running service: kept as hashes, changed at once, never a way to an open service."""

import json
import multiprocessing
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.keyring import LOOK_EVERY_S, KeyRing, open_keyring
from service.keys import SECRET, KeysError, Rate, create_key, read_keys, revoke_key
from service.settings import Settings, SettingsError

Run = Callable[..., str]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUPMAE_DATA", "data")

    def invoke(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["key", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    return invoke


def test_a_secret_is_shown_once_and_nowhere_kept(run: Run, path: Path) -> None:
    secret = SECRET.search(run("create", "site"))
    assert secret
    assert secret[0] not in path.read_text() + run("list") + run("list", "--json")
    assert "sha256" not in run("list", "--json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_commands_create_list_and_revoke(run: Run, path: Path) -> None:
    run("create", "acme", "--scope", "write", "--scope", "search", "--tenant", "metadata.tenant=a=b", "--rate", "2")
    (listed,) = json.loads(run("list", "--json"))
    assert listed["scopes"] == ["write", "search"]
    assert listed["tenant"] == {"field": "metadata.tenant", "value": "a=b"}
    assert listed["rate"] == {"per_second": 2.0, "burst": 4}
    assert str(path.relative_to(path.parents[1])) in run("revoke", "acme")
    assert json.loads(run("list", "--json")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("a/b",),
        ("a", "--scope", "everything"),
        ("a", "--index", "Not A Name"),
        ("a", "--tenant", "tenant=acme"),
        ("a", "--tenant", "metadata.tenant"),
        ("a", "--tenant", "metadata.tags[]=x"),
        ("a", "--rate", "0"),
        ("a", "--rate", "nan"),
        ("a", "--burst", "3"),
        ("a", "--expires", "tomorrow"),
        ("a", "--expires", "2020-01-01"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(run: Run, path: Path, arguments: tuple[str, ...]) -> None:
    run("create", *arguments, code=2)
    assert not path.exists()


def test_a_name_is_given_once_and_only_a_key_that_exists_is_revoked(path: Path) -> None:
    create_key(path, "site", ["search"])
    with pytest.raises(KeysError, match="there is a key 'site' already"):
        create_key(path, "site", ["admin"])
    with pytest.raises(KeysError, match=r"there is no key 'sight' in .*; there are: site"):
        revoke_key(path, "sight")


def test_keys_that_are_created_at_one_moment_are_all_there(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names = [f"key-{number}" for number in range(8)]
    processes = [context.Process(target=create_key, args=(path, name, ["search"])) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(key.name for key in read_keys(path) or ()) == names


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "keys": []}', '{"keys": [{"name": "x"}]}', '{"keys": [], "open": true}']
)
def test_a_damaged_file_is_an_error_at_start(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(KeysError, match=r"the key file .* is damaged: .*; put it back"):
        KeyRing(path)


def test_a_running_service_takes_up_a_new_key_and_drops_a_revoked_one(path: Path, clock: Clock) -> None:
    ring = KeyRing(path, clock)
    assert not ring.in_force
    secret = create_key(path, "site", ["search"])
    clock.now += LOOK_EVERY_S
    assert ring.in_force
    assert ring.find(secret)
    assert not ring.find(secret[:-1] + "!")
    revoke_key(path, "site")
    assert ring.find(secret), "not looked yet"
    clock.now += LOOK_EVERY_S
    assert not ring.find(secret)
    assert ring.in_force, "without keys nobody may ask, but nothing is open"


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.chmod(0)])
def test_a_file_that_goes_or_breaks_leaves_the_last_good_keys(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, change: Callable[[Path], object]
) -> None:
    secret = create_key(path, "site", ["search"])
    ring = KeyRing(path, clock)
    change(path)
    clock.now += LOOK_EVERY_S
    assert ring.in_force
    assert ring.find(secret)
    if not path.exists() or path.read_text() == "{":  # root reads a file of mode 0
        assert "the keys stay as they were" in caplog.text


def test_a_key_ends_when_it_expires(path: Path, clock: Clock) -> None:
    secret = create_key(path, "site", ["search"])
    keys = json.loads(path.read_text())
    keys["keys"][0]["expires"] = "2026-01-01T00:00:00Z"
    path.write_text(json.dumps(keys))
    ring = KeyRing(path, clock)
    assert not ring.find(secret)
    assert ring.in_force


def test_a_key_has_its_burst_and_then_its_rate_and_a_new_rate_counts_at_once(path: Path, clock: Clock) -> None:
    secret = create_key(path, "site", ["search"], rate=Rate(per_second=0.5, burst=3))
    ring = KeyRing(path, clock)
    key = ring.find(secret)
    assert key
    assert [ring.wait_s(key) for _ in range(5)] == [0, 0, 0, 2, 2]
    clock.now += 2
    assert [ring.wait_s(key) for _ in range(2)] == [0, 2]
    clock.now += 1_000
    assert [ring.wait_s(key) for _ in range(4)] == [0, 0, 0, 2]
    faster = key.model_copy(update={"rate": Rate(per_second=10, burst=1)})
    assert ring.wait_s(faster) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_without_keys_a_loopback_address_is_open(tmp_path: Path, host: str) -> None:
    assert not open_keyring(Settings(data=tmp_path, host=host)).in_force


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "search.example", ""])
def test_without_keys_another_address_is_refused_with_the_remedies(tmp_path: Path, host: str) -> None:
    settings = Settings(data=tmp_path, host=host)
    with pytest.raises(SettingsError, match=r"dupmae key create NAME.*127\.0\.0\.1.*DUPMAE_ANONYMOUS=true"):
        open_keyring(settings)
    assert not open_keyring(settings.model_copy(update={"anonymous": True})).in_force
    create_key(settings.key_file, "site", ["search"])
    assert open_keyring(settings).in_force
    assert open_keyring(settings.model_copy(update={"anonymous": True})).in_force
