"""A service that is kept busy, for pictures of the dashboards: callers come and go while its index is built anew.

It indexes a part of Python's own documentation, then a larger part, and asks for words of it. So the curves show what
they would anywhere: load that rises and falls, a build beside it, and the switch to that build.
"""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from deploy.local import Targets, free_address
from indexer.documents import Document
from indexer.stdlib import read_stdlib

INDEX = "docs"
COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
BEFORE, AFTER = 300, 500
"""Documents of the index, and of the build that takes its place."""

CALLERS = 8
STARTS_WITHIN_S = 120


@contextmanager
def busy_service(folder: Path, seconds: float) -> Iterator[Targets]:
    """A service, its callers and a rebuild, for about so long; what Prometheus is to scrape."""
    documents = [each for each in islice(read_stdlib(), AFTER) if isinstance(each, Document)]
    sources = [_source(folder / f"{count}.jsonl", documents[:count]) for count in (BEFORE, AFTER)]
    port, metrics_port, build_port = (int(free_address().partition(":")[2]) for _ in range(3))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUPMAE_")}
    environment |= {"DUPMAE_DATA": str(folder / "data"), "DUPMAE_INDEX": INDEX, "DUPMAE_THREADS": "1"}
    subprocess.run([*COMMAND, "index", "build", sources[0]], env=environment, check=True, stderr=subprocess.DEVNULL)
    serving = {
        "DUPMAE_PORT": str(port),
        "DUPMAE_METRICS_PORT": str(metrics_port),
        "DUPMAE_WRITABLE": "true",
        "DUPMAE_PROBE_S": "20",
    }
    with ExitStack() as stack:
        stack.enter_context(_process(["serve"], environment | serving))
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        done = threading.Event()
        for number in range(CALLERS):
            away = seconds * (0.1 + 0.4 * number / CALLERS)
            caller = threading.Thread(target=_call, args=(address, documents, done, number, away, seconds - away))
            caller.start()
            stack.callback(caller.join)
        stack.callback(done.set)
        rebuild = ["index", "build", sources[1], "--metrics-port", str(build_port)]
        later = threading.Timer(seconds / 8, lambda: stack.enter_context(_process(rebuild, environment)))
        later.start()
        stack.callback(later.cancel)
        yield {"dupmae": [metrics_port], "dupmae-build": [build_port]}


def _call(
    address: str, documents: Sequence[Document], done: threading.Event, number: int, begin_s: float, end_s: float
) -> None:
    """One caller, from `begin_s` to `end_s`: half of what it asks was asked before, and now and then it errs."""
    chance = random.Random(number)
    if done.wait(begin_s):
        return
    ends = threading.Timer(end_s - begin_s, lambda: None)
    ends.start()
    with httpx.Client(base_url=address, timeout=30) as client:
        while ends.is_alive() and not done.wait(chance.uniform(0.05, 0.4)):
            client.post("/v1/search", json=_search(chance, documents))
            if chance.random() < 0.05:
                client.put(f"/v1/documents/note-{number}", json={"text": _words(chance, documents, 30)})
    ends.cancel()


def _search(chance: random.Random, documents: Sequence[Document]) -> dict[str, Any]:
    kind = chance.choices(("common", "new", "wrong", "long", "hopeless"), (50, 44, 2, 2, 2))[0]
    if kind == "wrong":
        return {"query": ""}
    if kind == "long":
        return {"query": " ".join(_words(chance, documents, 100) for _ in range(8))[:4_000]}
    if kind == "hopeless":
        return {"query": _words(chance, documents, 4), "min_score": 1e6}
    source = documents[:12] if kind == "common" else documents
    return {"query": _words(random.Random(chance.randrange(30)) if kind == "common" else chance, source, 5)}


def _words(chance: random.Random, documents: Sequence[Document], count: int) -> str:
    """So many words that stand side by side in a document, or as many as it has from there on."""
    words = chance.choice(documents).text.split()
    begin = chance.randrange(max(1, len(words) - count))
    return " ".join(words[begin : begin + count]) or "python"


def _source(path: Path, documents: Sequence[Document]) -> str:
    lines = [json.dumps({"_id": each.id, "title": each.title, "text": each.text}) for each in documents]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@contextmanager
def _process(arguments: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen([*COMMAND, *arguments], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _wait(address: str) -> None:
    """Until the service can answer."""
    transport = httpx.HTTPTransport(retries=8)  # with waits that double, from half a second
    with httpx.Client(base_url=address, transport=transport, timeout=STARTS_WITHIN_S) as client:
        client.get("/readyz").raise_for_status()
