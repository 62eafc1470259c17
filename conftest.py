"""Which groups of tests this machine can run. A group that cannot run is skipped with its name in the reason, so that
`.ci/run` can tell a machine without a GPU from a broken setup."""

import os
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec

import pytest

# Networks of tests are too small for two threads to be faster than one, and tests run side by side. Set before anything
# imports torch, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them the commands they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FRAMEWORKS = {"langchain_core": "service/langchain.py", "llama_index": "service/llamaindex.py"}
"""Libraries that only one module needs, and that module, whose doctests cannot be collected without it."""

collect_ignore = [module for library, module in FRAMEWORKS.items() if not find_spec(library)]

MISSING: dict[str, tuple[Callable[[], object], str]] = {
    "gpu": (lambda: shutil.which("nvidia-smi"), "needs a CUDA device"),
    "server": (lambda: os.environ.get("TEST_QDRANT_URL"), "needs a Qdrant server; set TEST_QDRANT_URL"),
    "data": (lambda: os.environ.get("TEST_DATA"), "needs the judged collections; set TEST_DATA to their folder"),
    "ray": (lambda: find_spec("ray"), "needs Ray; pip install ray"),
    "frameworks": (lambda: all(map(find_spec, FRAMEWORKS)), f"needs {' and '.join(FRAMEWORKS)}"),
    "compose": (lambda: os.environ.get("TEST_COMPOSE"), "needs root, podman and minutes; make test-compose"),
    "prometheus": (lambda: shutil.which("promtool"), "needs Prometheus; apt-get install prometheus"),
    "alertmanager": (
        lambda: shutil.which("alertmanager") or shutil.which("prometheus-alertmanager"),
        "needs Alertmanager; apt-get install prometheus-alertmanager",
    ),
    "browser": (lambda: any(map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), "needs Chromium"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {group: reason for group, (present, reason) in MISSING.items() if not present()}
    for item in items:
        for group in reasons.keys() & {marker.name for marker in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=f"{group}: {reasons[group]}"))
