"""Two services on one embedded index, each a process of its own that reads it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import httpx

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from indexer.store import Build
from model.encoder import Encoder
from service.settings import Settings
from tests.end_to_end.conftest import Dupmae, Service

Start = Callable[..., AbstractContextManager[Service]]


def build(environment: dict[str, str], encoder: Encoder, text: str) -> Build:
    """A build of one document, whose id is the last word of its text; not published."""
    settings = Settings(data=Path(environment["DUPMAE_DATA"]))
    keep_artifact(settings, encoder.artifact)
    with closing(open_engine(settings)) as engine:
        return build_index(engine, encoder, [Document(text.split()[-1], text=text)], BuildOptions(index="replicas"))


def found(service: Service) -> tuple[str, str, bool]:
    """Build and document of an answer, and whether it was remembered."""
    response = httpx.post(f"{service.address}/v1/search", json={"query": "the king"}, timeout=30)
    assert response.status_code == 200, response.text
    answer = response.json()
    return answer["meta"]["index"]["build"], answer["results"][0]["id"], "cache" in answer["meta"]["took_ms"]


def test_a_publication_reaches_both_and_what_they_remember_does_not_outlive_it(
    dupmae: Dupmae, start: Start, environment: dict[str, str], tiny_encoder: Encoder
) -> None:
    island, mountain = (
        build(environment, tiny_encoder, f"the king of the {place}") for place in ("island", "mountain")
    )
    assert dupmae("index", "publish", island.id, "--index", "replicas", "--no-gate").returncode == 0
    settings = {"DUPMAE_INDEX": "replicas", "DUPMAE_SWITCH_S": "0.1"}
    with start(**settings) as one, start(**settings) as other:
        for replica in (one, other):
            assert found(replica) == (island.id, "island", False)
            assert found(replica) == (island.id, "island", True)
        assert dupmae("index", "publish", mountain.id, "--index", "replicas", "--no-gate").returncode == 0
        for replica in (one, other):
            while (answer := found(replica))[0] == island.id:
                assert answer[1] == "island"
            assert answer == (mountain.id, "mountain", False)
            assert found(replica) == (mountain.id, "mountain", True)
        assert dupmae("index", "rollback", "--index", "replicas").returncode == 0
        for replica in (one, other):
            while (answer := found(replica))[0] == mountain.id:
                assert answer[1] == "mountain"
            assert answer == (island.id, "island", False)
