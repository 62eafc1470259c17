"""Run by an interpreter that holds only the runtime's wheel: it must encode a query, and find no training library."""

from importlib.resources import files
from importlib.util import find_spec

from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder

for library in ("torch", "transformers", "onnx", "pytest"):
    assert find_spec(library) is None, f"the runtime's wheel brings {library}"
assert (files("service") / "web" / "index.html").is_file(), "the wheel lacks the page"
[encoding] = Encoder(Artifact.open(BUNDLED)).encode_queries(["compress a file"])
print(f"{BUNDLED}: {len(encoding.vector.cls)} dense numbers and {len(encoding.vector.ot_values)} words for a query")
