"""What the live quality probe costs a service that nobody asks: CPU of a round, and the default as a share of a core.

    DUPMAE_DATA=.dupmae python bench/probe.py --index demo

The app runs in this process. CPU time is less disturbed by other work on the machine than wall time, not undisturbed.
"""

import argparse
import asyncio
import time
from statistics import median

from service.app import create_app
from service.searcher import open_searchers
from service.settings import Settings, load


async def cpu_s(settings: Settings, seconds: float) -> float:
    """CPU seconds a service takes while it runs one round in about this time, or, with the probe off, does nothing."""
    app = create_app(lambda: open_searchers(settings), settings)
    async with app.router.lifespan_context(app):
        async with app.state.serving.desk(settings.index) as desk:
            if desk.build.probe is None:
                raise SystemExit(f"index {settings.index!r} keeps no queries; publish it with `dupmae index publish`")
        began = time.process_time()
        await asyncio.sleep(seconds)
        while settings.probe_s and b'outcome="complete"} 1.0' not in app.state.metrics.text():
            await asyncio.sleep(0.1)
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default="demo")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = load().model_copy(update={"index": arguments.index})
    off, on = settings.model_copy(update={"probe_s": 0}), settings.model_copy(update={"probe_s": arguments.seconds})
    default = Settings.model_fields["probe_s"].default
    more = []
    for _ in range(arguments.rounds):
        idle, probed = (asyncio.run(cpu_s(each, arguments.seconds)) for each in (off, on))
        more.append(probed - idle)
        print(f"{arguments.seconds:g} s: {idle:.2f} s of CPU without the probe, {probed:.2f} with a round of it")
    print(f"a round: {median(more):.2f} s of CPU; once in {default:g} s: {median(more) / default:.2%} of a core")


if __name__ == "__main__":
    main()
