#!/usr/bin/env bash
# The recipe at the paper's size: BERT-base, Wikipedia and MS MARCO, 8 GPUs; every stage of runs/small.sh.
#
#   runs/full.sh DATA OUT
#
# DATA holds what has to be fetched by hand, under its own licence:
#   bert-base-uncased/          with its masked-language head
#   text/*.jsonl.xz             raw text to pre-train on, {"title", "text"} a line: Wikipedia, and the passages of MS MARCO
#   msmarco/                    in BEIR layout: corpus.jsonl, queries.jsonl, qrels/train.tsv, qrels/dev.tsv
#   cross-encoder/              a cross-encoder for MS MARCO passages, as `transformers` saves it
#
# GPUS=4 for another number of them: batches are those of all ranks, so nothing else changes. A run that was interrupted goes on where it was. Batch sizes, lengths and rates are the paper's where it states them
# (arXiv 2305.02564); nobody has run this script at this size yet.
set -euo pipefail
data=${1:?usage: runs/full.sh DATA OUT}
out=${2:?usage: runs/full.sh DATA OUT}
export DUPMAE_DATA=$out/index
done_already() { [ -e "$1" ] && echo "$1 is there"; }
train() { torchrun --standalone --nproc-per-node "${GPUS:-8}" --no-python dupmae model "$@" --device cuda --precision bf16; }
mine() { dupmae index mine "$data/msmarco" "$@"; }

# ---- pre-training
done_already "$out/1-pretrained" || train pretrain "$data/bert-base-uncased" "$out/1-pretrained" "$data"/text/*.jsonl.xz \
  --steps 100000 --batch-size 512 --max-tokens 512 --learning-rate 1e-4 --head-learning-rate 1e-4 --save-every 1000
done_already "$out/1-warm" || dupmae model warm-start "$out/1-pretrained" "$out/1-warm" "$data"/text/*.jsonl.xz --sample 20000

# ---- stage 1: negatives of the batch and of BM25
done_already "$out/dev.jsonl" ||
  mine "$out/dev.jsonl" --split dev --method bm25 --documents "$data/msmarco" --ranks 1:20 --draw 4
done_already "$out/bm25.jsonl" ||
  mine "$out/bm25.jsonl" --split train --exclude-split dev --method bm25 --documents "$data/msmarco" --ranks 10:200
finetune=(--dev "$out/dev.jsonl" --dev-every 2000 --batch-size 512 --query-tokens 32 --document-tokens 144 --k-query 128 --k-document 384)
done_already "$out/2-bm25" || train finetune "$out/1-warm" "$out/2-bm25" "$out/bm25.jsonl" "${finetune[@]}" \
  --steps 8000 --negatives 3

# ---- stage 2: negatives mined with the model of stage 1
done_already "$out/mined.jsonl" || {
  done_already "$out/2-artifact" || dupmae model export "$out/2-bm25" "$out/2-artifact" --precision fp32
  dupmae index build "$data/msmarco" --artifact "$out/2-artifact"
  mine "$out/mined.jsonl" --split train --exclude-split dev --ranks 10:200
}
done_already "$out/3-mined" || train finetune "$out/2-bm25" "$out/3-mined" "$out/mined.jsonl" "${finetune[@]}" \
  --steps 8000 --negatives 7

# ---- stage 3: a cross-encoder's scores
done_already "$out/scored.jsonl" || dupmae model score "$data/cross-encoder" "$out/mined.jsonl" "$out/scored.jsonl"
done_already "$out/4-distilled" || train finetune "$out/3-mined" "$out/4-distilled" "$out/scored.jsonl" "${finetune[@]}" \
  --steps 8000 --negatives 15 --contrast-weight 0 --distill-weight 1

# ---- what is served, and how well it finds
for precision in fp32 fp16 int8; do
  done_already "$out/$precision" || dupmae model export "$out/4-distilled" "$out/$precision" --precision "$precision"
done
dupmae evaluate "$data/msmarco" --split dev --artifact "$out/fp32" --json "$out/dev.json"
