"""What a person meets in a terminal: answers, one-line errors, exit codes."""

import json

import pytest

from tests.end_to_end.conftest import Dupmae


def test_search_prints_titles_scores_and_both_parts(dupmae: Dupmae, index: str) -> None:
    found = dupmae("search", "compress a file", "--limit", "2")
    assert found.returncode == 0, found.stderr
    assert "cls" in found.stdout
    assert "2 of 4 documents" in found.stdout


def test_search_prints_what_the_service_would_answer_as_json(dupmae: Dupmae, index: str) -> None:
    found = dupmae("search", "compress a file", "--json", "--mode", "ot", "--limit", "3")
    answer = json.loads(found.stdout)
    assert [len(answer["results"]), answer["meta"]["mode"]] == [3, "ot"]
    assert all(result["parts"]["ot"] == pytest.approx(result["score"]) for result in answer["results"])


def test_explain_adds_up_to_the_score(dupmae: Dupmae, index: str) -> None:
    explained = json.loads(dupmae("explain", "compress a file", "king", "--json").stdout)
    for addends in ("words", "terms"):
        total = sum(addend["contribution"] for addend in explained[addends])
        assert total == pytest.approx(explained["parts"]["ot"], abs=1e-4)
    assert explained["score"] == pytest.approx(sum(explained["parts"].values()))
    assert 1 <= explained["rank"] <= 4
    shown = dupmae("explain", "compress a file", "king").stdout
    assert f"rank {explained['rank']} of 4 documents, in the results" in shown
    assert "rank not looked for" in dupmae("explain", "compress a file", "king", "--no-rank").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "x", "--index", "missing"], "missing"),
        (["explain", "file", "nobody"], "'nobody'"),
        (["search", ""], "holds no word"),
        (["search"], "no query"),
        (["search", "file", "--filter", "lang=en"], "lang"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(dupmae: Dupmae, index: str, arguments: list[str], said: str) -> None:
    failed = dupmae(*arguments)
    assert failed.returncode == 1
    assert failed.stderr.startswith("dupmae: ")
    assert failed.stderr.count("\n") == 1
    assert said in failed.stderr


def test_an_unknown_setting_is_refused_before_anything_runs(dupmae: Dupmae, index: str) -> None:
    failed = dupmae("search", "file", DUPMAE_DEEPTH="10")
    assert failed.returncode == 1
    assert "did you mean DUPMAE_DEPTH" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serch"],
        ["search", "x", "--limit", "0"],
        ["search", "x", "--limit", "1000000000"],
        ["search", "x", "--mode", "y"],
        ["search", "not UTF-8: \udcff"],
        ["explain", "x", "\udcff"],
    ],
)
def test_wrong_usage_is_exit_code_2(dupmae: Dupmae, arguments: list[str]) -> None:
    assert dupmae(*arguments).returncode == 2


@pytest.mark.parametrize("command", ["serve", "demo", "search", "explain", "evaluate"])
def test_every_command_has_help_with_an_example(dupmae: Dupmae, command: str) -> None:
    helped = dupmae(command, "--help")
    assert helped.returncode == 0
    assert f"Example: dupmae {command}" in helped.stdout


def test_search_loads_neither_a_web_framework_nor_the_client_of_a_server(dupmae: Dupmae, index: str) -> None:
    found = dupmae("search", "file", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & {"fastapi", "uvicorn", "qdrant_client", "httpx", "torch", "transformers", "prometheus_client"}


def test_the_version_is_the_distributions(dupmae: Dupmae) -> None:
    assert dupmae("--version").stdout.startswith("dupmae-search 0.")
