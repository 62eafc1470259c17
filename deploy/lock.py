"""What the images install, locked: `make lock` writes `deploy/requirements/IMAGE.txt`.

Every version with the hashes of all its files, so that an image installs the same bytes whenever it is built, on
amd64 and arm64. Versions are those of `constraints.txt`, which the tests run with. `made-from.txt` holds digests of
what the locks were made from; a test compares them, so nobody has to ask a package index whether a lock is current.
"""

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "requirements"

IMAGES = {
    "serve": ("cpu", "tracing"),
    "index": ("cpu", "tracing", "sources", "eval"),
    "gpu": ("gpu", "tracing", "sources", "eval"),
    "train": ("cpu", "tracing", "sources", "eval", "train"),
}
"""The extras that each image holds. `build` is one more lock: what makes the project's wheel."""

MADE_FROM = FOLDER / "made-from.txt"
"""Beside the locks, not in them: a lock that came out the same leaves the layers of the images as they are."""

COMMAND = [
    "uv",
    "pip",
    "compile",
    "--quiet",
    "--no-header",
    "--no-annotate",
    "--generate-hashes",
    "--python-platform",
    "linux",
    "--python-version",
    "3.11",
]


def requirements(lock: str) -> list[str]:
    """What a lock is asked to hold, as `pyproject.toml` says it; extras that name extras are followed."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if lock == "build":
        return sorted(told["build-system"]["requires"])
    project = told["project"]
    found, extras = set(project["dependencies"]), list(IMAGES[lock])
    while extras:
        for requirement in project["optional-dependencies"][extras.pop()]:
            if own := re.fullmatch(rf"{project['name']}\[(.+)\]", requirement):
                extras += own[1].split(",")
            else:
                found.add(requirement)
    return sorted(found)


def digest(lock: str, text: str) -> str:
    """Of everything that decides what this lock holds: requirements, and the constraints on what it names."""
    held = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() in held]
    return hashlib.sha256("\n".join([*requirements(lock), *pins]).encode()).hexdigest()


def lock(name: str) -> str:
    """Resolve one lock with `uv`, for the Python and the system of the images."""
    done = subprocess.run(
        [*COMMAND, "--constraint", "constraints.txt", "-"],
        cwd=ROOT,
        input="\n".join(requirements(name)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    locks = {name: lock(name) for name in ("build", *IMAGES)}
    for name, text in locks.items():
        (FOLDER / f"{name}.txt").write_text(text)
    MADE_FROM.write_text("".join(f"{digest(name, text)}  {name}.txt\n" for name, text in locks.items()))
