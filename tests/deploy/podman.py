"""Docker's side of the compose tests, played by podman: base images without a registry, builds, an API, health.

The real Compose binary talks to podman's Docker API. What podman lacks here is made up for: images are built with
buildah in a chroot, since the API has no BuildKit; health checks are run in a loop, since no systemd times them. What
was built is kept in podman's storage, under the names below, and built anew from the first layer that changed.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "localhost/dupmae-stand-in:python"
MONITORING = "localhost/dupmae-stand-in:monitoring"
PROGRAMS = ("podman", "buildah", "runc", "debootstrap", "netavark", "aardvark-dns", "iptables")
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"

ENVIRONMENT = {**os.environ, "CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf"))}

PIP_SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs")
"""Where this machine says which package index it reaches; lent to a build, never copied into an image."""


def missing() -> list[str]:
    """The programs that Debian's packages of the same names would bring."""
    found = {name: shutil.which(name) or Path("/usr/lib/podman", name).exists() for name in PROGRAMS}
    return [name for name, there in found.items() if not there]


def make_base(folder: Path) -> None:
    """A Debian with Python under the name of `BASE`, unless an earlier run made it."""
    if _done("podman", "image", "exists", BASE).returncode == 0:
        return
    system, archive = folder / "base", folder / "base.tar"
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", system)
    run("tar", "--create", "--file", archive, "--directory", system, "--exclude=./var/cache/apt/archives/*.deb", ".")
    run("podman", "import", archive, BASE)


def build(name: str, dockerfile: Path, *options: str) -> None:
    """Build an image with buildah, from the root of the repository."""
    lent = [f"--volume={path}:{path}:ro" for path in PIP_SETTINGS if Path(path).exists()]
    arguments = ["--format=docker", "--isolation=chroot", "--network=host", "--layers", "--pull-never", *lent, *options]
    run("buildah", "bud", *arguments, "--tag", name, "--file", dockerfile, ROOT)


def image_size(name: str) -> int:
    """Bytes on disk, layers of the base included."""
    return int(run("podman", "image", "inspect", "--format", "{{.Size}}", name))


@contextmanager
def docker_api(folder: Path) -> Iterator[str]:
    """What `DOCKER_HOST` is while podman answers there and health checks are run."""
    address = f"unix://{folder}/podman.sock"
    done = threading.Event()
    checking = threading.Thread(target=_check_health, args=(done,))
    with subprocess.Popen(["podman", "system", "service", "--time=0", address], env=ENVIRONMENT) as api:
        checking.start()
        try:
            yield address
        finally:
            done.set()
            checking.join()
            api.terminate()


def run(*command: str | Path) -> str:
    """Run a command to its end and give what it printed."""
    done = _done(*command)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _check_health(done: threading.Event) -> None:
    while not done.wait(2):  # each check is a process of its own
        for container in _done("podman", "ps", "--quiet").stdout.split():
            _done("podman", "healthcheck", "run", container)  # its end is what Compose waits to see


def _done(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
