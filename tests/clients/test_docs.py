"""What the documentation tells people to type works: the Python snippets of the page on clients, and every curl."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import close_session

from tests.test_contracts_docs import FENCE, ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "docs" / "api.md", ROOT / "docs" / "clients.md"]


def curls(page: Path) -> list[str]:
    """Those that change nothing: what publishes needs a build of the reader's own."""
    lines = [line for block in FENCE.findall(page.read_text()) for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("curl ") and "-X POST" not in line]


def here(text: str, address: str) -> str:
    """What is written for a reader's service, for ours."""
    at = re.sub(r"(http://)?localhost:8000", address, text)
    return at.replace("dupmae-minilm", "tiny")


def snippet(named: str) -> object:
    [found] = [code for code in SNIPPETS if named in code]
    needs = pytest.mark.frameworks if named.startswith("service.l") else ()
    return pytest.param(found, id=named, marks=needs)


@pytest.mark.parametrize(
    "code",
    [
        snippet(named)
        for named in (
            "import Client\n\nwith",
            "import AsyncClient, ServiceError",
            "service.langchain",
            "service.llamaindex",
            "openai",
            "huggingface_hub",
        )
    ],
)
def test_a_snippet_runs(code: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(here(code, address), "docs/clients.md", "exec"), {"__name__": "snippet"})
    close_session()
    assert capsys.readouterr().out.strip()


def test_every_snippet_is_among_them() -> None:
    assert len(SNIPPETS) == 6


@pytest.mark.parametrize("command", [command for page in PAGES for command in curls(page)])
def test_a_curl_command_is_answered(command: str, address: str) -> None:
    asked = [*shlex.split(here(command.partition(" | jq ")[0], address)), "--fail-with-body"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)
