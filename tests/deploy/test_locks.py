"""The images install what pyproject.toml and constraints.txt say; a stale lock is found without a network."""

import re

import pytest

from deploy.lock import FOLDER, IMAGES, MADE_FROM, ROOT, digest, requirements

LOCKS = ["build", *IMAGES]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (FOLDER / f"{lock}.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_was_made_from_what_the_project_asks_for_now(lock: str) -> None:
    text = (FOLDER / f"{lock}.txt").read_text()
    assert f"{digest(lock, text)}  {lock}.txt" in MADE_FROM.read_text().splitlines(), "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_version_has_its_hashes(lock: str) -> None:
    text = (FOLDER / f"{lock}.txt").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(lock))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_a_dependency_that_is_added_or_moved_makes_a_lock_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (FOLDER / "serve.txt").read_text()
    before = digest("serve", text)
    assert digest("serve", text.replace("\nnumpy==", "\nnot-numpy==")) != before
    monkeypatch.setitem(IMAGES, "serve", ("cpu", "zstd"))
    assert digest("serve", text) != before


def test_extras_that_name_extras_are_followed() -> None:
    assert {"pyarrow>=18", "zstandard>=0.23", "onnxruntime>=1.26"} <= set(requirements("index"))


def test_what_is_installed_over_another_lock_replaces_nothing_of_it() -> None:
    assert pins("serve").items() <= pins("index").items() <= pins("train").items()


def test_only_the_training_image_brings_torch() -> None:
    assert [lock for lock in LOCKS if pins(lock).keys() & {"torch", "transformers"}] == ["train"]


def test_no_image_brings_both_builds_of_onnx_runtime() -> None:
    builds = {lock: pins(lock).keys() & {"onnxruntime", "onnxruntime-gpu"} for lock in IMAGES}
    assert builds == {lock: {"onnxruntime-gpu" if lock == "gpu" else "onnxruntime"} for lock in IMAGES}


def test_the_dockerfile_installs_every_lock() -> None:
    assert set(re.findall(r"COPY deploy/requirements/(\w+)\.txt", DOCKERFILE)) == set(LOCKS)
