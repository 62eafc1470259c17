"""Services in processes of their own, and callers who ask them over plain sockets from this one."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

COMMAND = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0"]
CONNECTIONS = 32
IDLE_S = 2.0
"""How long a connection is kept for the next request; the service closes it after 5 s."""


class Server(NamedTuple):
    """A running `dupmae serve`."""

    host: str
    port: int
    process: "subprocess.Popen[str]"

    @property
    def rss_mb(self) -> float:
        """Resident memory, mapped files counted."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    @property
    def cpu_ms(self) -> int:
        """CPU time used so far, to the 10 ms that the kernel counts in."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")

    @property
    def waits(self) -> int:
        """How often its threads have had to wait so far: for work, for an answer, for Python's lock."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/status")
        return sum(int(re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", task.read_text())[0]) for task in tasks)


class Outcomes(NamedTuple):
    """What callers saw: (status, seconds) of each request, and how long it took them all."""

    seen: list[tuple[int, float]]
    seconds: float

    def ms(self, status: int) -> list[float]:
        """Sorted milliseconds of the requests of one status."""
        return sorted(1000 * seconds for seen, seconds in self.seen if seen == status)


def serving(index: str, **changes: str) -> AbstractContextManager[Server]:
    """`dupmae serve` on a free port, ready when entered."""
    return running(COMMAND, DUPMAE_INDEX=index, DUPMAE_LOG_LEVEL="warning", **changes)


@contextmanager
def running(command: Sequence[str], **changes: str) -> Iterator[Server]:
    """A server that says at which address it is."""
    with subprocess.Popen(command, env=os.environ | changes, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            found = next(filter(None, (re.search(r"at (http://\S+)", line) for line in process.stderr)))
            address = urlsplit(found[1])
            yield Server(address.hostname or "", address.port or 0, process)
        finally:
            process.kill()


async def saturate(server: Server, queries: Sequence[str], seconds: float, requests: int = 10**9) -> Outcomes:
    """`CONNECTIONS` callers, each of which asks as soon as it was answered."""
    began, seen, left = time.perf_counter(), [], iter(range(requests))

    async def call(number: int) -> None:
        connection = Connection(server)
        for turn in left:
            seen.append(await connection.ask(queries[(number * 97 + turn) % len(queries)]))
            if time.perf_counter() - began > seconds:
                break
        connection.close()

    await asyncio.gather(*(call(number) for number in range(CONNECTIONS)))
    return Outcomes(seen, time.perf_counter() - began)


async def flood(server: Server, queries: Sequence[str], rate: float, seconds: float) -> Outcomes:
    """Requests at a rate; each takes a connection that is idle, or else a new one."""
    began, seen, idle = time.perf_counter(), [], []

    async def call(query: str) -> None:
        connection = idle.pop() if idle else Connection(server)
        seen.append(await connection.ask(query))
        connection.idle_since = time.perf_counter()
        idle.append(connection)

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        while idle and time.perf_counter() - idle[0].idle_since > IDLE_S:
            idle.pop(0).close()
        tasks.append(asyncio.create_task(call(queries[number % len(queries)])))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return Outcomes(seen, time.perf_counter() - began)


class Connection:
    """A kept-alive HTTP connection, opened by its first request."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.idle_since = 0.0

    async def ask(self, query: str) -> tuple[int, float]:
        """Status and seconds of one search."""
        began = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._server.host, self._server.port)
        reader, writer = self._streams
        writer.write(request({"query": query}))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(length(head))
        return int(head.split(b" ", 2)[1]), time.perf_counter() - began

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()


class Caller:
    """A kept-alive connection that waits for each answer."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection((server.host, server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, query: str, limit: int = 10) -> tuple[float, dict[str, Any]]:
        """Milliseconds and answer of one search."""
        sent = request({"query": query, "limit": limit})
        began = time.perf_counter()
        self._socket.sendall(sent)
        head, _, content = self._socket.recv(2**16).partition(b"\r\n\r\n")
        while len(content) < length(head):
            content += self._socket.recv(2**16)
        took = 1000 * (time.perf_counter() - began)
        assert head.startswith(b"HTTP/1.1 200"), content
        return took, json.loads(content)


def request(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def length(head: bytes) -> int:
    """Bytes of the body that follows."""
    return int(re.findall(rb"(?i)content-length: (\d+)", head)[0])


def quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]
