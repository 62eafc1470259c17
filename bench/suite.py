"""Every benchmark, one after the other: tables on the terminal, JSON and one picture in `bench/results/`.

    make bench                     # everything that this machine can run; says beforehand how long
    make bench BENCH=--quick       # about three minutes
    python bench/suite.py --only retrieval start

A part that fails is named at the end, and the others run all the same. It measures on the index that `dupmae demo`
makes, in `DUPMAE_DATA` or `.dupmae`, and makes it first where there is none. Figures of time belong to the machine and
to what else it did: the load before and after stands in every file.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from record import machine, picture

from indexer.documents import Document
from indexer.stdlib import read_stdlib

HERE = Path(__file__).parent
RESULTS = HERE / "results"
INDEX = "demo"
CORPUS = "CORPUS"
"""Stands for the path of a file with the documents of that index, a JSON line each."""


@dataclass(frozen=True)
class Part:
    """One script of this folder, and how it is run.

    Attributes:
        asks: What it answers, in a line.
        whole: Its arguments.
        quick: Its arguments when minutes count; None leaves it out.
        minutes: How long both take on two quiet cores.
        needs: A library that not every environment has.
        figures: Whether it takes `--json`; its table is kept anyhow.
    """

    name: str
    asks: str
    script: str
    whole: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    minutes: tuple[float, float] = (1, 1)
    needs: str = ""
    figures: bool = True


PARTS = (
    Part(
        "start",
        "cold start of four commands: seconds, processor, imports",
        "start.py",
        ("--rounds", "7"),
        ("--rounds", "3"),
        (0.8, 0.4),
    ),
    Part(
        "retrieval",
        "one query by number of points and engine: p50, p99, overlap with brute force, bytes",
        "retrieval.py",
        ("--sizes", "1000", "10000", "100000"),
        ("--sizes", "1000", "5000", "--queries", "100"),
        (8, 0.5),
    ),
    Part(
        "depth",
        "overlap and time by candidate depth, on random vectors, the hardest case",
        "candidate_depth.py",
        ("--points", "20000"),
        ("--points", "3000", "--count", "100"),
        (2, 0.3),
    ),
    Part(
        "encoder",
        "documents, tokens and operations a second of encoding, against the machine's ceiling; queries; peak memory",
        "encoder.py",
        (CORPUS,),
        (CORPUS, "--documents", "48", "--rounds", "3"),
        (2, 0.7),
        needs="onnx_ir",
    ),
    Part("layouts", "bytes, RAM, overlap and time of each layout of the embedded engine", "presets.py", minutes=(4, 0)),
    Part(
        "serving",
        "a request over HTTP beside the same work without; throughput; four times too much; the cache",
        "serving.py",
        ("--index", INDEX),
        ("--index", INDEX, "--requests", "100", "--seconds", "6"),
        (2, 0.7),
    ),
    Part(
        "build",
        "documents a second of a whole build beside encoding alone",
        "build.py",
        ("--documents", "600"),
        minutes=(4, 0),
    ),
    Part(
        "training", "the vocabulary head in training: memory and time, against the naive form", "lpu.py", needs="torch"
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, and only what is worth its minutes")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results go")
    given = parser.parse_args()
    chosen = [part for part in PARTS if not given.only or part.name in given.only]
    runs, left_out = plan(chosen, quick=given.quick)
    announce(runs, left_out, quick=given.quick)
    environment = os.environ | {"DUPMAE_INDEX": INDEX, "DUPMAE_LOG_LEVEL": "warning"}
    out = given.out / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True)
    prepare(environment, out / "corpus.jsonl")
    records = run_all(runs, out, environment)
    summary = {"machine": machine(), "quick": given.quick, "parts": records, "left_out": left_out}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    drawn = draw(records, out / "figures.png")
    finish(runs, records, out, drawn)


def run_all(
    runs: Sequence[tuple[Part, tuple[str, ...]]], out: Path, environment: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Run them; Ctrl-C keeps what is finished."""
    records: list[dict[str, Any]] = []
    with suppress(KeyboardInterrupt):
        for part, arguments in runs:
            records.append(run(part, arguments, out, environment))
    return records


def plan(parts: Sequence[Part], *, quick: bool) -> tuple[list[tuple[Part, tuple[str, ...]]], dict[str, str]]:
    """The parts that run, with their arguments, and why the others do not."""
    runs, left_out = [], {}
    for part in parts:
        if part.needs and not find_spec(part.needs):
            left_out[part.name] = f"needs {part.needs}, which is not installed"
        elif quick and part.quick is None:
            left_out[part.name] = "not in --quick"
        else:
            runs.append((part, part.quick or () if quick else part.whole))
    return runs, left_out


def announce(runs: Sequence[tuple[Part, tuple[str, ...]]], left_out: Mapping[str, str], *, quick: bool) -> None:
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f}")
    total = sum(part.minutes[quick] for part, _ in runs)
    print(f"About {total:.0f} min on two quiet cores:")
    for part, _ in runs:
        print(f"  {part.name:<10} {part.minutes[quick]:4.1f} min  {part.asks}")
    for name, reason in left_out.items():
        print(f"  {name:<10} left out: {reason}")
    print(flush=True)


def prepare(environment: Mapping[str, str], corpus: Path) -> None:
    """The index of the demo, made if there is none: two minutes of encoding. Its documents in a file, shuffled."""
    command = [sys.executable, "-c", "from service.cli import main; main()", "demo", "--no-serve"]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit("the demo's index could not be made, and everything is measured on it; the reason stands above")
    documents = [record for record in read_stdlib() if isinstance(record, Document)]
    random.Random(1).shuffle(documents)
    records = ({"_id": each.id, "title": each.title, "text": each.text} for each in documents)
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records))


def run(part: Part, arguments: Sequence[str], out: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run one script, its table passed through as it comes; what it left behind, and how it ended."""
    figures = out / f"{part.name}.json"
    print(f"== {part.name}: {part.asks}\n   python bench/{' '.join([part.script, *arguments])}\n", flush=True)
    arguments = [str(out / "corpus.jsonl") if word == CORPUS else word for word in arguments]
    began, lines = time.perf_counter(), []
    command = [sys.executable, "-u", str(HERE / part.script), *arguments]
    command += ["--json", str(figures)] if part.figures else []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except KeyboardInterrupt:
            child.kill()
            raise
    print(flush=True)
    (out / f"{part.name}.txt").write_text("".join(lines))
    return {
        "part": part.name,
        "exit_code": child.returncode,
        "seconds": round(time.perf_counter() - began, 1),
        "figures": json.loads(figures.read_text()) if figures.exists() else None,
    }


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """One panel for each picture that the parts left; False where matplotlib is missing or nothing is to be drawn."""
    panels = [panel for record in records if record["figures"] for panel in pictures_of(record["figures"])]
    if not panels or not find_spec("matplotlib"):
        return False
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(7 * columns, 4.2 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        (draw_bars if isinstance(first_x(panel), str) else draw_lines)(axis, panel)
        axis.set_title(panel["title"])
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return True


def pictures_of(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels that a part left; of one that names systems, how fast each encodes."""
    if "systems" not in figures:
        return list(figures.get("pictures", []))
    rates = [(name, row["documents/s"]) for name, row in figures["systems"].items()]
    return [picture("Encoding", "system", "documents a second", {"documents": rates})]


def first_x(panel: Mapping[str, Any]) -> float | str:
    return next(iter(panel["series"].values()))[0][0]


def draw_lines(axis: Any, panel: Mapping[str, Any]) -> None:
    for name, points in panel["series"].items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    if panel["log"]:
        axis.set_xscale("log")
        axis.set_yscale("log")
    axis.set_xlabel(panel["x"])
    axis.set_ylabel(panel["y"])
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=7)


def draw_bars(axis: Any, panel: Mapping[str, Any]) -> None:
    width = 0.8 / len(panel["series"])
    for place, (name, points) in enumerate(panel["series"].items()):
        names, values = zip(*points, strict=True)
        axis.barh([at + place * width for at in range(len(names))], values, width, label=name)
        axis.set_yticks([at + 0.4 - width / 2 for at in range(len(names))], names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(panel["y"])
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=7)


def finish(
    runs: Sequence[tuple[Part, tuple[str, ...]]], records: Sequence[Mapping[str, Any]], out: Path, drawn: bool
) -> None:
    """Say where everything is and what failed or was not reached; exit 1 if something was."""
    failed = [record["part"] for record in records if record["exit_code"]]
    missing = [part.name for part, _ in runs[len(records) :]]
    print(f"{len(records) - len(failed)} of {len(runs)} parts, load {os.getloadavg()[0]:.1f} now")
    print(f"figures and tables: {out}" + ("" if drawn else "; no picture: pip install matplotlib"))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see their .txt there")
    if missing:
        sys.exit(f"interrupted before the end of: {', '.join(missing)}")


if __name__ == "__main__":
    main()
