#!/usr/bin/env bash
# The whole recipe in small: raw text to an artifact in minutes on two cores, with every stage of the full one.
#
#   runs/small.sh OUT [TEACHER]
#
# Nothing is fetched: the text is the documentation of the Python that runs it (runs/small_data.py), the network starts
# from random weights. TEACHER is a cross-encoder or a sentence encoder; without one the model of the second stage teaches
# the third, which shows the path and little else. A run that was interrupted goes on where it was. The same recipe at full
# size is runs/full.sh.
set -euo pipefail
out=${1:?usage: runs/small.sh OUT [TEACHER]}
teacher=${2:-$out/3-mined}
here=$(dirname "${BASH_SOURCE[0]}")
data=$out/data
beir=$data/beir
export DUPMAE_DATA=$out/index
done_already() { [ -e "$1" ] && echo "$1 is there"; }

done_already "$beir/qrels/dev.tsv" || python "$here/small_data.py" "$data"

# ---- pre-training: both decoders on raw text, then heads that are on one scale
done_already "$out/1-pretrained" || dupmae model pretrain "$data/bert" "$out/1-pretrained" "$data/text.jsonl" \
  --random-weights --dense-dim 96 --steps 250 --batch-size 32 --max-tokens 64 --learning-rate 1e-3 \
  --head-learning-rate 1e-3 --bow-weight 0.05
done_already "$out/1-warm" || dupmae model warm-start "$out/1-pretrained" "$out/1-warm" "$data/text.jsonl" --sample 1000

# ---- stage 1: the fused score, negatives of the batch and of BM25
mine() { dupmae index mine "$beir" "$@"; }
done_already "$out/dev.jsonl" || mine "$out/dev.jsonl" --split dev --method bm25 --documents "$beir" --ranks 1:50
done_already "$out/bm25.jsonl" ||
  mine "$out/bm25.jsonl" --split train --exclude-split dev --method bm25 --documents "$beir" --ranks 2:50
finetune=(--dev "$out/dev.jsonl" --batch-size 32 --query-tokens 24 --document-tokens 64 --k-query 32 --k-document 128)
done_already "$out/2-bm25" || dupmae model finetune "$out/1-warm" "$out/2-bm25" "$out/bm25.jsonl" "${finetune[@]}" \
  --steps 160 --learning-rate 5e-4 --head-learning-rate 5e-4

# ---- stage 2: negatives that the model of stage 1 takes for answers
done_already "$out/mined.jsonl" || {
  done_already "$out/2-artifact" || dupmae model export "$out/2-bm25" "$out/2-artifact"
  dupmae index build "$beir" --artifact "$out/2-artifact"
  mine "$out/mined.jsonl" --split train --exclude-split dev --ranks 2:50
}
done_already "$out/3-mined" || dupmae model finetune "$out/2-bm25" "$out/3-mined" "$out/mined.jsonl" "${finetune[@]}" \
  --steps 60 --negatives 3 --learning-rate 2e-4 --head-learning-rate 2e-4

# ---- stage 3: a teacher's scores
done_already "$out/scored.jsonl" || dupmae model score "$teacher" "$out/mined.jsonl" "$out/scored.jsonl"
done_already "$out/4-distilled" || dupmae model finetune "$out/3-mined" "$out/4-distilled" "$out/scored.jsonl" \
  "${finetune[@]}" --steps 40 --negatives 5 --contrast-weight 0.2 --distill-weight 1 --learning-rate 1e-4

# ---- what is served, and how well it finds
done_already "$out/artifact" || dupmae model export "$out/4-distilled" "$out/artifact"
dupmae evaluate "$beir" --split dev --artifact "$out/artifact" --json "$out/dev.json"
