"""What the service costs over encoding and retrieving alone, and how it bears too much.

    DUPMAE_DATA=.dupmae python bench/serving.py --index demo                   # about two minutes on two cores
    DUPMAE_DATA=.dupmae python bench/serving.py --index demo --soak 50000      # and the memory over so many requests

It runs `dupmae serve` as a process of its own, without its cache but where that is what is measured, and asks it over
plain sockets from this one, so the callers' time is in the figures too. Beside it runs a route that does nothing
(`empty_route.py`): what a request costs whatever is done for it. On a shared machine trust the ratios.
"""

import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from callers import CONNECTIONS, Caller, Server, flood, quantile, running, saturate, serving
from record import parser_of, picture, write

from service import settings
from service.searcher import Searcher, open_searchers

EMPTY = [sys.executable, str(Path(__file__).with_name("empty_route.py"))]
ROUNDS = 3
WORDS = 8

Row = dict[str, Any]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--index", default="default")
    parser.add_argument("--requests", type=int, default=300, help="single requests, one after the other")
    parser.add_argument("--seconds", type=float, default=15, help="how long each load lasts")
    parser.add_argument("--soak", type=int, default=0, help="requests over which memory is watched")
    given = parser.parse_args()
    loaded = settings.load()
    rows: list[Row] = []
    with open_searchers(loaded) as searchers:
        searcher = searchers.open(given.index)
        searcher.warm_up()
        queries = queries_of(searcher, 4096)
        print(f"{searcher.build.documents:,} documents, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        with serving(given.index, DUPMAE_CACHE_MB="0") as server:
            rows.append(overhead(searcher, server, queries[: given.requests]))
            rows.append(throughput(searcher, server, queries, given.seconds))
            rows += overload(server, queries, 4 * rows[-1]["service_per_s"], given.seconds)
            rows += soak(server, queries, given.soak)
        with serving(given.index) as server:
            rows.append(remembered(server, queries[: given.requests]))
    bars = [(name, rows[1][key]) for name, key in (("bare loop", "bare_per_s"), ("service", "service_per_s"))]
    write(given.json, rows, [picture("Searches a second", "", "per second", {f"{CONNECTIONS} callers": bars})])


def overhead(searcher: Searcher, server: Server, queries: Sequence[str]) -> Row:
    """A request beside the same work in this process, in turns, so that both see the same machine."""
    alone, asked, inside, alone_cpu, asked_cpu = [], [], [], 0.0, server.cpu_ms
    connection = Caller(server)
    for query in queries:
        began, cpu = time.perf_counter(), time.process_time()
        searcher.search(query)
        alone.append(1000 * (time.perf_counter() - began))
        alone_cpu += 1000 * (time.process_time() - cpu)
        took, answer = connection.ask(query)
        asked.append(took)
        inside.append(answer["meta"]["took_ms"])
    stages = {stage: statistics.median(took[stage] for took in inside) for stage in inside[0]}
    cpu = (server.cpu_ms - asked_cpu) / len(queries)
    threads = [stages["encode"], stages["retrieve"] + stages["render"]]
    with running([*EMPTY, str(len(json.dumps(answer))), *map(str, threads)]) as empty:
        connection = Caller(empty)
        nothing = [connection.ask(query) for query in queries]
    row = {
        "measure": "one request at a time, p50",
        "bare_ms": statistics.median(alone),
        "whole_ms": statistics.median(asked),
        "stages_ms": stages,
        "over_ms": beyond(asked, inside),
        "empty_route_ms": beyond([took for took, _ in nothing], [answer["meta"]["took_ms"] for _, answer in nothing]),
        "bare_cpu_ms": alone_cpu / len(queries),
        "service_cpu_ms": cpu,
    }
    print(f"\none request at a time, p50 in ms of {len(queries)}")
    print(f"  encode + retrieve in this process   {row['bare_ms']:8.2f}")
    print(f"  the whole request over HTTP        {row['whole_ms']:8.2f}")
    print(f"    its stages: {', '.join(f'{stage} {ms:.2f}' for stage, ms in stages.items())}")
    print(f"    HTTP, JSON and everything else   {row['over_ms']:8.2f}")
    print(f"    the same of a route that is empty{row['empty_route_ms']:8.2f}")
    print(f"  CPU time, in this process and there {row['bare_cpu_ms']:7.2f}, {cpu:.2f}")
    return row


def throughput(searcher: Searcher, server: Server, queries: Sequence[str], seconds: float) -> Row:
    """Requests a second of many callers beside a loop in this process, in turns."""
    bare: list[float] = []
    served: list[float] = []
    waits, answered = -server.waits, 0
    for _ in range(ROUNDS):
        bare.append(bare_rate(searcher, queries, seconds / ROUNDS))
        outcomes = asyncio.run(saturate(server, queries, seconds / ROUNDS))
        served.append(len(outcomes.ms(200)) / outcomes.seconds)
        answered += len(outcomes.seen)
    row = {
        "measure": f"{CONNECTIONS} callers",
        "bare_per_s": statistics.median(bare),
        "service_per_s": statistics.median(served),
        "ratio": statistics.median(mine / alone for mine, alone in zip(served, bare, strict=True)),
        "waits_per_request": (waits + server.waits) / answered,
    }
    print(f"\n{CONNECTIONS} callers, requests a second, {ROUNDS} rounds")
    print(f"  encode + retrieve in a loop        {', '.join(f'{rate:.1f}' for rate in bare)}")
    print(f"  the service                        {', '.join(f'{rate:.1f}' for rate in served)}")
    print(f"  median ratio                       {row['ratio']:8.2f}")
    print(f"  waits of its threads a request     {row['waits_per_request']:8.1f}")
    return row


def overload(server: Server, queries: Sequence[str], rate: float, seconds: float) -> Iterator[Row]:
    """What becomes of requests that come at a fixed rate, whether or not the earlier ones are answered."""
    outcomes = asyncio.run(flood(server, queries, rate, seconds))
    statuses = Counter(status for status, _ in outcomes.seen)
    print(f"\n{rate:.0f} requests a second for {seconds:g} s, statuses {dict(sorted(statuses.items()))}")
    for status, count in sorted(statuses.items()):
        p50, p99 = (quantile(outcomes.ms(status), share) for share in (0.5, 0.99))
        print(f"  {status}: p50 {p50:8.1f} ms, p99 {p99:8.1f} ms")
        yield {"measure": f"{rate:.0f} a second", "status": status, "answers": count, "p50_ms": p50, "p99_ms": p99}


def soak(server: Server, queries: Sequence[str], requests: int) -> Iterator[Row]:
    """Resident memory while requests go by."""
    if not requests:
        return
    print(f"\nresident memory over {requests:,} requests, MB")
    for part in range(1, 11):
        asyncio.run(saturate(server, queries, float("inf"), requests // 10))
        print(f"  {part * requests // 10:>8,} {server.rss_mb:8.1f}", flush=True)
        yield {"measure": "soak", "requests": part * requests // 10, "rss_mb": server.rss_mb}


def remembered(server: Server, queries: Sequence[str]) -> Row:
    """The same request a second time, and with its vector alone remembered."""
    connection, row = Caller(server), Row(measure="with the cache, p50 in ms")
    print(f"\nwith the cache, p50 in ms of {len(queries)}")
    for what, limit in (("nothing remembered", 10), ("the answer", 10), ("the query's vector", 9)):
        row[what] = statistics.median(connection.ask(query, limit=limit)[0] for query in queries)
        print(f"  {what:<34} {row[what]:8.2f}")
    return row


def bare_rate(searcher: Searcher, queries: Sequence[str], seconds: float) -> float:
    began = time.perf_counter()
    for done, query in enumerate(cycle(queries), start=1):
        searcher.search(query)
        if (elapsed := time.perf_counter() - began) > seconds:
            return done / elapsed
    raise AssertionError("no queries")


def beyond(asked: Sequence[float], inside: Sequence[dict[str, float]]) -> float:
    """Median milliseconds of a request that are in none of its stages."""
    return statistics.median(took - sum(each.values()) for took, each in zip(asked, inside, strict=True))


def queries_of(searcher: Searcher, count: int) -> list[str]:
    """Beginnings of documents, each another, in an order that is always the same."""
    texts = (str(point.payload.get("text", "")).split() for point in searcher.store.scroll())
    queries = sorted({" ".join(words[:WORDS]) for words in texts if len(words) >= WORDS})
    random.Random(1).shuffle(queries)
    return queries[:count]


if __name__ == "__main__":
    main()
