"""What an import brings with it, seen in a fresh interpreter: the source rules of import-linter cannot see a library
that imports torch for us, nor how long `dupmae --help` takes to load."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"torch", "transformers"}
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


def test_no_module_of_the_service_or_the_indexer_loads_torch() -> None:
    assert not loaded_by(*modules_of("service"), *modules_of("indexer")) & TRAINING


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    assert not loaded_by("service.cli") & HEAVY


def test_the_packages_import_only_what_lies_on_their_left() -> None:
    lint = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
