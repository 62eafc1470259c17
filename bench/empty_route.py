"""What HTTP costs before anything is done with it: one FastAPI route that only waits for two threads.

`bench/serving.py` runs it beside the service, with the same server, sockets and size of answer, and in threads as much
time spent as the service spends: reading memory, so that what the processor keeps nearest is gone afterwards, as it is
after a model has run.
"""

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from service.server import listen

MEMORY = np.ones(2**23, np.float32)
"""32 MiB, more than caches hold."""


class Body(BaseModel):
    """As short as a search's."""

    query: str


def busy(seconds: float) -> float:
    """Read memory for so long; the seconds it became."""
    began = perf_counter()
    while perf_counter() - began < seconds:
        MEMORY.sum()
    return perf_counter() - began


def app(stages_ms: list[float], size: int) -> FastAPI:
    """A route of `POST /v1/search` that does nothing, in as many threads, for so long; its answer has `size` bytes."""
    made = FastAPI()

    @made.post("/v1/search")
    async def search(body: Body) -> Response:
        took: dict[str, Any] = {}
        for stage, ms in enumerate(stages_ms):
            took[str(stage)] = 1000 * await asyncio.to_thread(busy, ms / 1000)
        content = {"meta": {"took_ms": took}, "text": "x" * size}
        return Response(json.dumps(content), media_type="application/json")

    return made


if __name__ == "__main__":
    with listen("127.0.0.1", 0) as listener:
        print(f"at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        made = app([float(ms) for ms in sys.argv[2:]], int(sys.argv[1]))
        uvicorn.Server(uvicorn.Config(made, log_level="error", access_log=False, http="h11")).run(sockets=[listener])
