"""The graph of an artifact, loaded by ONNX Runtime: where it runs, and whether it is what the manifest says."""

from typing import Any, Literal

from model.artifact import GRAPH, Artifact, ArtifactError, Manifest

Provider = Literal["cpu", "cuda"]

OLDEST_FOR_INT8 = (1, 26)
"""ONNX Runtime 1.22 to 1.24 multiply int8 wrongly with AMX, where columns are more than 16 and no multiple of it."""

INPUTS = {"input_ids": "tensor(int64)", "attention_mask": "tensor(int64)", "k": "tensor(int64)"}
OUTPUTS = {"cls": "tensor(float)", "ot_indices": "tensor(int64)", "ot_values": "tensor(float)"}


class ProviderError(RuntimeError):
    """The encoder cannot run where it was asked to; the message names the remedy."""


def load_session(artifact: Artifact, provider: Provider, *, arena: bool) -> Any:
    """ONNX Runtime's session of an artifact's graph, each call of which has one thread.

    Args:
        artifact: An opened artifact.
        provider: Where to run; never changed silently.
        arena: Use ONNX Runtime's memory arena (CPU).

    Raises:
        ArtifactError: The graph does not fit the manifest.
        ProviderError: No ONNX Runtime, or not with this provider, or one that is too old.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ProviderError(
            'ONNX Runtime is not installed; install it with `pip install "dupmae-search[cpu]"` (or [gpu])'
        ) from error
    _check_version(artifact, onnxruntime.__version__)
    wanted = _provider_name(artifact, provider, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # of each batch
    options.enable_cpu_mem_arena = arena
    if provider == "cuda":
        onnxruntime.preload_dlls()  # CUDA as pip installs it lies where no loader looks
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(artifact.path / GRAPH, options, providers=[wanted])
    if session.get_providers()[0] != wanted:
        raise ProviderError(
            f"asked for {wanted}, ONNX Runtime took {session.get_providers()[0]}; check the CUDA driver"
        )
    if provider == "cuda" and (elsewhere := products_on(session, "CPUExecutionProvider")):
        raise ProviderError(f"ONNX Runtime would multiply on the CPU: {', '.join(elsewhere)}; export with this release")
    _check_graph(session, artifact.manifest)
    return session


def products_on(session: Any, name: str) -> list[str]:
    """The matrix products that a session has given to a provider, by their nodes' names.

    ONNX Runtime puts arithmetic with shapes on the CPU whatever is asked for, so that its option to refuse a CPU
    altogether would refuse every graph that asks for a length.
    """
    return [
        node.name
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name == name and "MatMul" in node.op_type
    ]


def _check_version(artifact: Artifact, version: str) -> None:
    oldest = ".".join(map(str, OLDEST_FOR_INT8))
    found = tuple(int(part) for part in version.split(".")[:2])
    if artifact.manifest.precision == "int8" and found < OLDEST_FOR_INT8:
        raise ProviderError(
            f"ONNX Runtime {version} multiplies int8 wrongly on some processors; "
            f"install {oldest} or newer with `pip install 'onnxruntime>={oldest}'`"
        )


def _provider_name(artifact: Artifact, provider: Provider, available: list[str]) -> str:
    if provider == "cpu":
        return "CPUExecutionProvider"
    if artifact.manifest.precision == "int8":
        raise ProviderError(
            f"{artifact.path} is an int8 artifact, which is for CPUs; write one for a GPU with "
            "`dupmae model export CHECKPOINT FOLDER --precision fp16`, and build the index with it"
        )
    if "CUDAExecutionProvider" not in available:
        raise ProviderError(
            f"this ONNX Runtime has no CUDA (it has {', '.join(available)}); "
            'replace it: `pip uninstall onnxruntime`, then `pip install "dupmae-search[gpu]"`'
        )
    return "CUDAExecutionProvider"


def _check_graph(session: Any, manifest: Manifest) -> None:
    for what, wanted, nodes in (
        ("inputs", INPUTS, session.get_inputs()),
        ("outputs", OUTPUTS, session.get_outputs()),
    ):
        found = {node.name: node.type for node in nodes}
        if found != wanted:
            raise ArtifactError(f"{GRAPH} has {what} {found}, not {wanted}; export the checkpoint with this release")
    dense_dim = session.get_outputs()[0].shape[1]
    if dense_dim != manifest.dense_dim:
        raise ArtifactError(f"{GRAPH} gives {dense_dim} dense dimensions, the manifest says {manifest.dense_dim}")
