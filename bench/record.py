"""What a benchmark leaves behind beside the table that it prints: one JSON file, which `suite.py` gathers and draws.

    {"command": ..., "date": ..., "machine": {...}, "load": [before, after], "rows": [...], "pictures": [...]}

A picture is a panel: `{"title", "x", "y", "log", "series": {name: [[x, y], ...]}}`, or bars where x is a name.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "onnxruntime", "tokenizers", "qdrant-edge-py", "qdrant-client", "bm25s", "torch", "fastapi")
LOAD = os.getloadavg()[0]
"""When the benchmark began."""

Series = Mapping[str, Sequence[tuple[float | str, float]]]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file too")
    return parser


def machine() -> dict[str, Any]:
    """What figures of time belong to."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """As Linux names it; elsewhere, as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def picture(title: str, x: str, y: str, series: Series, *, log: bool = False) -> dict[str, Any]:
    """A panel of the suite's picture; `log` is of both axes."""
    points = {name: [list(point) for point in points] for name, points in series.items()}
    return {"title": title, "x": x, "y": y, "log": log, "series": points}


def write(path: Path | None, rows: Sequence[Mapping[str, Any]], pictures: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the file, if one is wanted."""
    if path is None:
        return
    record = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load": [round(LOAD, 2), round(os.getloadavg()[0], 2)],
        "rows": rows,
        "pictures": pictures,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
