"""From a build that is ready to one that is live: verified, judged, published, and the oldest ones removed.

Nothing is removed before the pointer has moved, and what is published stays as it is when a build is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

from indexer.build import BuildError, BuildInterrupted
from indexer.catalog import kept_artifact, open_encoder, publish, replayed
from indexer.gate import Limits, objections
from indexer.judgement import Judgement, Opened, answerable, judge
from indexer.known_items import Queries, known_items
from indexer.ledger import ledger_path, remove_ledger
from indexer.probe_set import ProbeSet
from indexer.probing import judged_before, make_probe_set
from indexer.settings import IndexSettings
from indexer.store import Build, BuildLocked, Engine, IndexNotFound, StoreError, StoreUnavailable
from indexer.verify import Verification, verify
from model.artifact import ArtifactError

FEWEST_KNOWN_ITEMS = 50
"""Below, one edited document may look like a loss, and a small index could not be changed."""


class VerificationFailed(BuildError):
    """A build is not what it says; the message names the checks."""


class PublicationBlocked(BuildError):
    """The gate keeps a build from going live; the message has every reason. What is published did not change."""


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """What a release is told.

    Attributes:
        gate: Whether the build is verified and judged first.
        judged: Queries to judge with; known items when None.
        limits: What the gate puts up with.
        keep: Ready builds that remain, the published one among them; 0 keeps all.
        watch: Told how many points verification has read.
        opened: What this process has open already, and the embedded engine would not open again.
    """

    gate: bool = True
    judged: Queries | None = None
    limits: Limits = field(default_factory=Limits)
    keep: int = 3
    watch: Callable[[int], None] = lambda points: None
    opened: Sequence[Opened] = ()


@dataclass(frozen=True)
class Release:
    """What was done.

    Attributes:
        build: Its facts as they are now.
        judgement: None without a gate, or when nothing else is published, or for the reason in `note`.
        note: Why what is published could not be judged; empty otherwise.
        removed: Ids of the builds that were deleted.
    """

    build: Build
    judgement: Judgement | None
    note: str
    removed: list[str]


def release(engine: Engine, settings: IndexSettings, build: Build, options: ReleaseOptions) -> Release:
    """Publish a build if it may be.

    Raises:
        ArtifactError: The model that encoded it is not kept, so nobody could search it.
        BuildInterrupted: Ctrl-C; the build stays ready, since making it was the dear part.
        PublicationBlocked: The gate says no.
        StoreError: The engine failed, or the build is not ready.
    """
    try:
        return _release(engine, settings, build, options)
    except KeyboardInterrupt as error:
        raise BuildInterrupted(_left_as(engine, build)) from error


def verify_build(
    engine: Engine, settings: IndexSettings, build: Build, watch: Callable[[int], None] = lambda points: None
) -> Verification:
    """Verify a build against the artifact that is kept for it.

    Raises:
        ArtifactError: There is none.
        StoreError: The build cannot be opened.
    """
    with _opened(engine, settings, build) as (store, encoder):
        return verify(store, build, encoder, watch=watch)


def prune(engine: Engine, settings: IndexSettings, index: str, keep: int) -> list[str]:
    """Delete ready builds beyond `keep`, and return their ids; with 0 none is.

    Those go first that were live, or made, the longest ago; what was live before is the last to go, for `rollback`.

    The published build counts and stays, and so does one that is being made or is open (which the embedded engine
    knows and a server does not).
    """
    if not keep:
        return []
    published = engine.published(index).id
    others = [build for build in engine.builds(index) if build.state == "ready" and build.id != published]
    before = max((build for build in others if build.went_live), key=attrgetter("went_live"), default=None)
    others.sort(key=lambda build: (build is before, build.went_live or build.created), reverse=True)
    removed = []
    for build in reversed(others[keep - 1 :]):
        try:
            engine.drop(build)
        except BuildLocked:
            continue
        remove_ledger(ledger_path(settings.data, index, build.id))
        removed.append(build.id)
    return removed


def _release(engine: Engine, settings: IndexSettings, build: Build, options: ReleaseOptions) -> Release:
    judgement, note, build = None, "", replayed(settings, engine, build)
    if options.gate:
        build, judgement, note = _pass_gate(engine, settings, build, options)
    build = publish(settings, engine, build)
    return Release(build, judgement, note, prune(engine, settings, build.index, options.keep))


def _left_as(engine: Engine, build: Build) -> str:
    """Where a release stands that somebody stopped."""
    published = _published(engine, build.index)
    if published and published.id == build.id:
        return f"interrupted; index {build.index} answers from build {build.id}"
    return (
        f"interrupted; what is published did not change, and build {build.id} is ready. To verify and publish it: "
        f"`dupmae index publish {build.id} --index {build.index}`"
    )


def _pass_gate(
    engine: Engine, settings: IndexSettings, build: Build, options: ReleaseOptions
) -> tuple[Build, Judgement | None, str]:
    published = _published(engine, build.index)
    is_live = published is not None and published.id == build.id
    facts: dict[str, object] = {}
    with _opened(engine, settings, build, options.opened) as candidate:
        verification = verify(candidate.store, build, candidate.encoder, watch=options.watch)
        judgement, note = None, ""
        if not verification.ok and not is_live:
            build = _marked(engine, build, verification)
        elif published and not is_live:
            judgement, note = _judgement(engine, settings, candidate, published, options)
        if judgement:
            facts["judged"] = judgement.facts
        reasons = objections(build, published, verification, judgement, options.limits)
        if not reasons:
            facts["probe"] = _probe_set(candidate, build, options.judged)
    if facts:
        build = build.model_copy(update=facts)
        engine.save(build)
    if reasons:
        still = f"; build {published.id} still answers" if published else ""
        raise PublicationBlocked(
            f"build {build.id} of index {build.index} is not published{still}: {' Also, '.join(reasons)}. To publish "
            f"it all the same: `dupmae index publish {build.id} --index {build.index} --no-gate`"
        )
    return build, judgement, note


def _probe_set(candidate: Opened, build: Build, judged: Queries | None) -> ProbeSet | None:
    """What the build will be asked while it is served: what it is judged by, as far as it holds the answers."""
    queries = judged or judged_before(build)
    return make_probe_set(candidate, answerable(queries, [candidate.store]) if queries else None)


def _judgement(
    engine: Engine, settings: IndexSettings, candidate: Opened, published: Build, options: ReleaseOptions
) -> tuple[Judgement | None, str]:
    """The judgement, or why there is none: what can no longer be searched is nothing to hold a build against."""
    try:
        with _opened(engine, settings, published, [candidate, *options.opened]) as live:
            stores, judged = (candidate.store, live.store), options.judged
            queries = answerable(judged, stores) if judged else known_items(*stores)
            if judged is None and len(queries.texts) < FEWEST_KNOWN_ITEMS:
                few = f"{len(queries.texts)} of {FEWEST_KNOWN_ITEMS} known items can be asked of both builds"
                return None, f"not judged: {few}; give judgements of your own (--judge) to have it judged"
            return judge(candidate, live, queries), ""
    except StoreUnavailable:
        raise
    except (ArtifactError, StoreError) as error:
        return None, f"not judged: {error}"


def _marked(engine: Engine, build: Build, verification: Verification) -> Build:
    """A build that is not what it says, marked so that no other copies its vectors."""
    reason = "verification failed at " + ", ".join(check.name for check in verification.failed)
    marked = build.model_copy(update={"reason": reason})
    engine.save(marked)
    return marked


def _published(engine: Engine, index: str) -> Build | None:
    try:
        return engine.published(index)
    except IndexNotFound:
        return None


@contextmanager
def _opened(engine: Engine, settings: IndexSettings, build: Build, opened: Sequence[Opened] = ()) -> Iterator[Opened]:
    """A build with its encoder, both taken from what is open already where they are there."""
    for each in opened:
        if (each.store.build.index, each.store.build.id) == (build.index, build.id):
            yield each
            return
    same = (each.encoder for each in opened if each.encoder.fingerprint == build.fingerprint)
    encoder = next(same, None) or open_encoder(settings, kept_artifact(settings, build))
    with closing(engine.open(build.index, build.id)) as store:
        yield Opened(store, encoder)
