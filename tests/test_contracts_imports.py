"""What an import brings with it, seen in a fresh interpreter: the source rules of import-linter cannot see a library
that imports torch for us, nor how long `dupmae --help` takes to load."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"torch", "transformers"}
FRAMEWORKS = {"service.langchain", "service.llamaindex"}
"""Modules that import the framework they serve."""

HEAVY = TRAINING | {"fastapi", "onnxruntime", "qdrant_client", "qdrant_edge", "bm25s", "ir_measures"}


def loaded_by(*modules: str) -> set[str]:
    """Names of the top-level packages that a fresh interpreter holds after importing `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules_of(package: str) -> list[str]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("module", ["service.cli", "service.app", "indexer.build", "model.encoder", "model.artifact"])
def test_serving_and_indexing_load_neither_torch_nor_transformers(module: str) -> None:
    assert not loaded_by(module) & TRAINING


def test_graphs_are_written_without_torch_so_that_encoding_is_measured_where_there_is_none() -> None:
    assert not loaded_by("model.graph") & TRAINING


def test_no_module_of_the_service_or_the_indexer_loads_torch() -> None:
    ours = {*modules_of("service"), *modules_of("indexer")} - FRAMEWORKS
    assert not loaded_by(*sorted(ours)) & TRAINING


def test_the_client_loads_no_framework_and_no_engine() -> None:
    assert not loaded_by("service.client") & (HEAVY | {"starlette", "tokenizers", "langchain_core", "llama_index"})


@pytest.mark.parametrize(
    ("module", "library"), [("service.langchain", "langchain_core"), ("service.llamaindex", "llama_index")]
)
def test_a_retriever_without_its_framework_says_what_to_install(module: str, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"pip install 'dupmae-search[{module.rpartition('.')[2]}]'" in done.stderr


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    assert not loaded_by("service.cli") & HEAVY


def test_the_packages_import_only_what_lies_on_their_left() -> None:
    lint = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
