"""Two services on one embedded index, each a process of its own that reads it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import httpx

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from indexer.store import Build
from model.encoder import Encoder
from service.settings import Settings
from tests.end_to_end.conftest import Dupmae, Service

Start = Callable[..., AbstractContextManager[Service]]


def build(environment: dict[str, str], encoder: Encoder, place: str) -> Build:
    """A build of two documents whose ids begin with `place`; not published."""
    settings = Settings(data=Path(environment["DUPMAE_DATA"]))
    keep_artifact(settings, encoder.artifact)
    documents = [Document(f"{place}-{who}", text=f"the {who} of the {place}") for who in ("king", "queen")]
    with closing(open_engine(settings)) as engine:
        return build_index(engine, encoder, documents, BuildOptions(index="replicas"))


class Replica:
    """A service, asked with a key."""

    def __init__(self, service: Service, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=service.address, headers=headers, timeout=30)

    def search(self, **options: object) -> dict[str, Any]:
        response = self.client.post("/v1/search", json={"query": "the king", **options})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def found(self) -> tuple[str, str, bool]:
        """Build and place of an answer, and whether it was remembered."""
        answer = self.search()
        (place,) = {result["id"].partition("-")[0] for result in answer["results"]}
        return answer["meta"]["index"]["build"], place, "cache" in answer["meta"]["took_ms"]


def test_two_replicas_are_one_service(
    dupmae: Dupmae, start: Start, environment: dict[str, str], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    """One key, one cursor, one publication: whatever one of them says or is told holds for the other."""
    island, mountain = (build(environment, tiny_encoder, place) for place in ("island", "mountain"))
    settings = {"DUPMAE_INDEX": "replicas", "DUPMAE_SWITCH_S": "0.1", "DUPMAE_KEYS": str(tmp_path / "keys.json")}
    key = dupmae("key", "create", "tester", "--scope", "search", **settings).stdout.strip()
    assert dupmae("index", "publish", island.id, "--index", "replicas", "--no-gate").returncode == 0
    with start(**settings) as first, start(**settings) as second, ExitStack() as opened:
        one, other = replicas = Replica(first, key), Replica(second, key)
        for replica in replicas:
            opened.enter_context(replica.client)
            assert replica.client.post("/v1/search", json={}, headers={"Authorization": ""}).status_code == 401
            assert replica.found() == (island.id, "island", False)
            assert replica.found() == (island.id, "island", True)
        page = one.search(limit=1)
        following = other.search(limit=1, cursor=page["next_cursor"])
        ids = {answer["results"][0]["id"] for answer in (page, following)}
        assert ids == {"island-king", "island-queen"}
        assert dupmae("index", "publish", mountain.id, "--index", "replicas", "--no-gate").returncode == 0
        for replica in replicas:
            while (answer := replica.found())[0] == island.id:
                assert answer[1] == "island"
            assert answer == (mountain.id, "mountain", False)
            assert replica.found() == (mountain.id, "mountain", True)
        assert dupmae("index", "rollback", "--index", "replicas").returncode == 0
        for replica in replicas:
            while (answer := replica.found())[0] == mountain.id:
                assert answer[1] == "mountain"
            assert answer == (island.id, "island", False)
