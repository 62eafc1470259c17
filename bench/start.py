"""Cold start: how long commands take until they answer, what of that is the processor's, and what they import.

    DUPMAE_DATA=.dupmae python bench/start.py --index demo [--rounds 5]

Each start is a fresh process, all commands in turn; files are in the system's cache, as after a restart of a service.
`serve` ends when it says that it is ready, which is after its warm-up. On a shared machine trust `cpu`: it does not
count waiting. `imports` is the share of one more start's seconds that imports take (`python -X importtime`), and the
packages that take most.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from record import parser_of, picture, write

DUPMAE = ["-c", "from service.cli import main; main()"]
READY = " at http"
COMMANDS = {
    "dupmae --help": ["--help"],
    "dupmae index --help": ["index", "--help"],
    "dupmae search": ["search", "compress a file", "--json"],
    "dupmae serve, ready": ["serve", "--port", "0"],
}
IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \|( *)(\S.*)$", re.MULTILINE)
LARGEST = 6


class Started(NamedTuple):
    """One start: seconds by the clock, of the processor, and what the process wrote to stderr."""

    seconds: float
    cpu: float
    written: str


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--index", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    environment = os.environ | {"DUPMAE_INDEX": given.index, "DUPMAE_LOG_LEVEL": "warning"}
    started: dict[str, list[Started]] = {name: [] for name in COMMANDS}
    for _ in range(given.rounds + 1):
        for name, arguments in COMMANDS.items():
            started[name].append(start(arguments, environment))
    print(f"{given.rounds} starts, load {os.getloadavg()[0]:.1f}\n")
    print("| command | p50, s | spread | cpu, s | modules | imports | of which |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, arguments in COMMANDS.items():
        row = row_of(started[name][1:], start(arguments, environment | {"PYTHONPROFILEIMPORTTIME": "1"}))
        rows.append({"command": name} | row)
        largest = ", ".join(f"{package} {share:.0%}" for package, share in row["largest"].items())
        spread = f"{row['fastest_s']:.2f} to {row['slowest_s']:.2f}"
        figures = [f"{row['p50_s']:.2f}", spread, f"{row['cpu_s']:.2f}", str(row["modules"]), f"{row['imports']:.0%}"]
        print(f"| `{name}` | {' | '.join(figures)} | {largest} |", flush=True)
    seconds = {key: [(row["command"], row[f"{key}_s"]) for row in rows] for key in ("cpu", "p50")}
    write(given.json, rows, [picture("Cold start", "command", "seconds", seconds)])


def row_of(starts: Sequence[Started], profiled: Started) -> dict[str, Any]:
    own = own_seconds(profiled.written)
    largest = sorted(own.items(), key=lambda item: -item[1])[:LARGEST]
    seconds = [each.seconds for each in starts]
    return {
        "p50_s": round(statistics.median(seconds), 3),
        "fastest_s": round(min(seconds), 3),
        "slowest_s": round(max(seconds), 3),
        "cpu_s": round(statistics.median(each.cpu for each in starts), 3),
        "modules": len(IMPORT.findall(profiled.written)),
        "imports": round(sum(own.values()) / profiled.seconds, 3),
        "largest": {package: round(taken / profiled.seconds, 3) for package, taken in largest},
    }


def own_seconds(importtime: str) -> dict[str, float]:
    """Seconds in a package's own modules, by package; the standard library is one."""
    own: dict[str, float] = {}
    for microseconds, _, module in IMPORT.findall(importtime):
        package = module.partition(".")[0]
        name = "stdlib" if package in sys.stdlib_module_names else package
        own[name] = own.get(name, 0.0) + int(microseconds) / 1e6
    return own


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Started:
    """Run until it ends, or says that it is ready."""
    began, before = time.perf_counter(), children_cpu()
    with running(arguments, environment) as process:
        assert process.stderr is not None
        written, seconds = [], 0.0
        for line in process.stderr:
            written.append(line)
            if READY in line:
                seconds = time.perf_counter() - began
                break
    return Started(seconds or time.perf_counter() - began, children_cpu() - before, "".join(written))


@contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, *DUPMAE, *arguments]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children_cpu() -> float:
    """Seconds of the processor that ended processes of this one took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
