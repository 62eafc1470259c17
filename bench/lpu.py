"""The linear projection unit against its naive form: peak memory and time of a step, forward and backward.

    python bench/lpu.py                        # bow, mlm, a whole pre-training step; B=32, L=128, V=30,522, d=384
    python bench/lpu.py --case bow --width 768 --device cuda --dtype bf16 --peak-tflops 990
    python bench/lpu.py --case dupmae --profile

The naive form is what one would write: the whole (B, L, V) tensor, masked, `amax`, autograd; `F.cross_entropy` over
whole logits. Every measurement has a process of its own, the forms take turns, and medians are shown. Peak memory is
what a step adds to the process (on a GPU: `torch.cuda.max_memory_allocated`). Model FLOPs are those of the naive form's
products, 6 N d V for N rows of logits, so the share of the peak is one of useful work.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from record import parser_of, write
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

CASES = ("bow", "mlm", "dupmae")


def naive_max_pool(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    logits = F.linear(features, weight, bias)  # (B, L, V)
    return logits.masked_fill(~keep[..., None], float("-inf")).amax(1).float()


def naive_cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight, bias).float(), targets, reduction="sum")


def step(args: argparse.Namespace) -> Callable[[], Tensor]:
    """The loss of one step, from inputs that are the same for both forms."""
    from model import dupmae, lpu

    max_pool, cross_entropy = lpu.max_pool, lpu.cross_entropy
    if args.form == "naive":
        max_pool, cross_entropy = naive_max_pool, naive_cross_entropy
        dupmae.max_pool, dupmae.cross_entropy = naive_max_pool, naive_cross_entropy
    torch.manual_seed(0)
    B, L, V, d = args.batch, args.length, args.vocabulary, args.width
    input_ids = torch.randint(5, V, (B, L))
    masked = torch.rand(B, L) < 0.3
    if args.case == "dupmae":
        return whole_step(args, input_ids, masked)
    features = torch.randn(B, L, d, device=args.device, requires_grad=True)
    weight = torch.randn(V, d, device=args.device).mul_(d**-0.5).requires_grad_()
    bias = torch.zeros(V, device=args.device, requires_grad=True)
    input_ids, masked = input_ids.to(args.device), masked.to(args.device)
    if args.case == "bow":
        return lambda: dupmae.bow_loss(max_pool(features, weight, bias, ~masked), input_ids, torch.ones_like(masked))
    return lambda: cross_entropy(features[masked], weight, bias, input_ids[masked])


def whole_step(args: argparse.Namespace, input_ids: Tensor, masked: Tensor) -> Callable[[], Tensor]:
    from transformers import BertConfig, BertForMaskedLM

    from model.dupmae import Batch, Counts, DupMAE, FusedEncoder, Objective

    config = BertConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 32,
        intermediate_size=4 * args.width,
    )
    encoder = FusedEncoder(BertForMaskedLM(config), dense_dim=args.width, special_ids=[0, 1, 2, 3, 4])
    network = DupMAE(encoder).train().to(args.device)
    for unused in (encoder.project, encoder.terms):
        unused.requires_grad_(False)
    L = args.length
    visible = (torch.rand(args.batch, L, L) < 0.5) & ~torch.eye(L, dtype=torch.bool)
    visible[:, :, 0] = True
    flat = torch.arange(input_ids.numel())
    batch = Batch(
        input_ids,
        torch.ones_like(input_ids),
        input_ids.masked_fill(masked, 4),
        flat[masked.flatten()],
        flat,
        visible,
    ).to(torch.device(args.device))
    counts = Counts(*(count.to(args.device) for count in Counts.of(batch)))
    return lambda: network(batch, Objective(bow=0.02), counts)["total"]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One process: a small step to load what loads itself, the peak of the first full step, the time of the second."""
    loss = step(args)
    cuda = args.device == "cuda"

    def run() -> float:
        started = time.perf_counter()
        with torch.autocast(args.device, torch.bfloat16) if args.dtype == "bf16" else nullcontext():
            value = loss()
        value.backward()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    torch.ones(64, 64, device=args.device, requires_grad=True).square().sum().backward()
    if cuda:
        torch.cuda.reset_peak_memory_stats()  # making the inputs took memory too
    before = torch.cuda.memory_allocated() if cuda else _peak_bytes()
    run()
    peak = (torch.cuda.max_memory_allocated() if cuda else _peak_bytes()) - before
    seconds = min(run() for _ in range(2))
    if args.profile:  # last, because it takes memory and time itself
        print_operators(run, cuda=cuda)
    return {"megabytes": peak / 2**20, "seconds": seconds}


def print_operators(run: Callable[[], float], *, cuda: bool) -> None:
    """The operators that take most of a step, on stderr."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found:
        run()
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=50), file=sys.stderr)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def model_flops(args: argparse.Namespace) -> float:
    """Of a step: 6 per weight and row of logits, and for the whole step 6 per weight of the body and token."""
    tokens = args.batch * args.length
    head = 6 * args.width * args.vocabulary
    if args.case != "dupmae":
        return head * tokens * (0.3 if args.case == "mlm" else 1.0)
    body = 6 * 12 * args.width**2 * (args.layers + 1)  # the [CLS] decoder is one layer more
    return tokens * (body + head * (1 + 1 + 0.3))  # bag of words, [CLS] decoder, masked words


def compare(args: argparse.Namespace, case: str) -> dict[str, float | str]:
    """Both forms, taking turns."""
    found: dict[str, list[dict[str, float]]] = {"naive": [], "ours": []}
    for _ in range(args.repeats):
        for form, results in found.items():
            options = vars(args) | {"case": case, "form": form, "json": False}
            words = [
                f"--{name.replace('_', '-')}={value}" for name, value in options.items() if not isinstance(value, bool)
            ]
            words += [f"--{name}" for name, value in options.items() if value is True]
            done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        f"{form} {key}": statistics.median(result[key] for result in results)
        for form, results in found.items()
        for key in ("seconds", "megabytes")
    }
    args.case = case
    seconds = middle["ours seconds"]
    row: dict[str, float | str] = {
        "case": case,
        **middle,
        "less memory": middle["naive megabytes"] / middle["ours megabytes"],
        "faster": middle["naive seconds"] / seconds,
        "tokens/s": args.batch * args.length / seconds,
    }
    if args.peak_tflops:
        row["share of peak"] = model_flops(args) / seconds / (args.peak_tflops * 1e12)
    return row


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--case", choices=(*CASES, "all"), default="all")
    parser.add_argument("--form", choices=("both", "naive", "ours"), default="both", help="one form: this process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of products")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, for its share")
    parser.add_argument("--profile", action="store_true", help="where the time goes, on stderr")
    args = parser.parse_args()
    if args.form != "both":
        print(json.dumps(measure(args)))
        return
    rows = [compare(args, case) for case in (CASES if args.case == "all" else (args.case,))]
    for row in rows:
        figures = (f"{name} {value:,.2f}" for name, value in row.items() if isinstance(value, float))
        print(f"{row['case']:7}", "  ".join(figures))
    write(args.json, rows)


if __name__ == "__main__":
    main()
