"""Peak memory and rate of reading, by format and number of records: the memory must not grow.

    python bench/sources.py                                     # 100,000 and 1,000,000 records
    python bench/sources.py --records 10000 --formats parquet

Every row is read in a process of its own, so that its peak is its own; what it holds before it reads is part of that.
Rates are by seconds of the processor, which other work on the machine does not change much.
"""

import argparse
import csv
import gzip
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from indexer.documents import BadRecord
from indexer.sources import count_records, read_documents

NAMES = ("id", "title", "text", "lang")
TEXT = "They nest on cliffs by the sea, and some of them on roofs of the town. " * 5
ROW_GROUP = 50_000


def rows(count: int) -> Iterator[tuple[str, str, str, str]]:
    return ((str(number), f"Gull {number}", f"{number}, {TEXT}\nsecond line", "en") for number in range(count))


def write_jsonl(path: Path, count: int) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows(count))


def write_csv(path: Path, count: int) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES])
        csv.writer(file).writerows(rows(count))


def write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, pa.string()) for name in NAMES])
    with ParquetWriter(path, schema) as writer:
        remaining = rows(count)
        for start in range(0, count, ROW_GROUP):
            group = [next(remaining) for _ in range(min(ROW_GROUP, count - start))]
            writer.write_table(pa.table(dict(zip(NAMES, zip(*group, strict=True), strict=True)), schema))


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "jsonl.gz": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def main() -> None:
    arguments = parse_arguments()
    if arguments.read:
        print(json.dumps(measure(arguments.read)))
    elif arguments.write:
        WRITERS[arguments.formats[0]](arguments.write, arguments.records[0])
    else:
        compare(arguments.formats, arguments.records)


def compare(formats: Sequence[str], counts: Sequence[int]) -> None:
    print(platform.platform(), f"Python {platform.python_version()}")
    print(f"{'format':>10} {'records':>10} {'MB':>7} {'records/s':>10} {'counted/s':>10} {'peak MiB':>9} {'before':>7}")
    for format in formats:
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"birds.{format}"
                run("--write", path, "--formats", format, "--records", count)  # a peak is passed on to a child
                size = path.stat().st_size / 1e6
                found = json.loads(run("--read", path))
            assert found["read"] == found["counted"] == count
            read_per_s, counted_per_s = count / found["read_s"], count / found["count_s"]
            print(
                f"{format:>10} {count:>10,} {size:>7.0f} {read_per_s:>10,.0f} {counted_per_s:>10,.0f} "
                f"{found['peak_mib']:>9.1f} {found['before_mib']:>7.1f}"
            )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(*arguments: object) -> bytes:
    return subprocess.check_output([sys.executable, __file__, *map(str, arguments)])


def measure(path: Path) -> dict[str, float]:
    """Read a file and count it; times in seconds, memory in MiB."""
    before = peak_mib()
    began = time.process_time()
    counted = count_records([path])
    count_s = time.process_time() - began
    began, read = time.process_time(), 0
    for record in read_documents([path]):
        assert not isinstance(record, BadRecord), record
        read += 1
    read_s = time.process_time() - began
    assert counted is not None
    return {
        "counted": counted,
        "count_s": count_s,
        "read": read,
        "read_s": read_s,
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The most memory this process ever held; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
