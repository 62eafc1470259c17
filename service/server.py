"""One process that listens: sockets, logs and signals around the app."""

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from indexer.store import Build
from service.access import LOGGER as REQUESTS
from service.access import Discreet
from service.app import create_app
from service.headers import MAX_HEADER_BYTES, MAX_URL_BYTES
from service.keyring import open_keyring
from service.metrics import Metrics
from service.searcher import open_searchers
from service.settings import Settings, SettingsError
from service.stopping import Stop

COLLECTED_AFTER = (10_000, 20, 100)
"""Objects more, and collections, after which Python looks for garbage that refers to itself: what is young, younger,
and everything. A search makes thousands and leaves hardly any. By Python's own numbers a busy service spent 5 % of its
time in them, and stood still for 50 ms twice a second."""


def run(settings: Settings, *, on_ready: Callable[[str, Build], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; both are a clean stop, see `Stop`.

    Args:
        settings: Where to listen and what to serve.
        on_ready: Called with the address and the build once the default index answers.

    Raises:
        KeysError: As `create_app`.
        SettingsError: An address is taken or not ours, or as `create_app`.
    """
    _log_to_stderr(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listen(settings.host, settings.port) as listener:
        address = _address(listener)

        def ready(build: Build) -> None:
            settle()
            on_ready(address, build)

        app = create_app(lambda: open_searchers(settings), settings, on_ready=ready)
        drain_s = settings.drain_s
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=drain_s,
            http="h11",  # bounds what it holds of a request line and headers, which httptools does not
            h11_max_incomplete_event_size=MAX_URL_BYTES + MAX_HEADER_BYTES,
        )
        server = uvicorn.Server(config)
        announce = partial(setattr, app.state, "draining", True)
        stop = Stop(server, announce, lead_s=settings.drain_lead_s, drain_s=drain_s)
        server.handle_exit = stop.begin  # type: ignore[method-assign] # uvicorn makes it its signal handler
        with _scraped(settings, app.state.metrics):
            try:
                server.run(sockets=[listener])
            except KeyboardInterrupt:
                return


def check_address(settings: Settings) -> None:
    """Fail now if `run` could not listen later.

    Raises:
        KeysError: As `open_keyring`.
        SettingsError: The address is taken or not ours, or as `open_keyring`.
    """
    open_keyring(settings)
    listen(settings.host, settings.port).close()


def settle() -> None:
    """Once everything is loaded: it stays, so Python need not look through it for garbage, and what comes seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once.

    asyncio switches Nagle's algorithm off only for sockets whose protocol number says TCP, which those of
    `create_server` do not. With it on, an answer written in two parts waits 40 ms for the client's delayed
    acknowledgement. Accepted connections inherit the option.

    Raises:
        SettingsError: The address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _scraped(settings: Settings, metrics: Metrics) -> Iterator[None]:
    """Serve the metrics on their own port, if there is to be one."""
    if settings.metrics_port is None:
        yield
        return
    try:
        server, _ = metrics.serve(settings.host, settings.metrics_port)
    except OSError as error:
        place = f"{settings.host}:{settings.metrics_port}"
        raise SettingsError(f"cannot serve metrics on {place}: {error.strerror}; change DUPMAE_METRICS_PORT") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _log_to_stderr(settings: Settings) -> None:
    others = logging.StreamHandler()
    others.setFormatter(Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[others], level=logging.WARNING)
    logging.getLogger("dupmae").setLevel(settings.log_level.upper())
    lines = logging.StreamHandler()
    lines.setFormatter(Discreet("%(message)s"))
    REQUESTS.addHandler(lines)
    REQUESTS.propagate = False
