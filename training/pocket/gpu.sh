#!/usr/bin/env bash
# Trains one size of the pocket model on a GPU, with one command and in under nine minutes a call:
#
#   training/pocket/gpu.sh [SIZE=gpu128] [MINUTES=8.5]
#
# Call it again until it says "finished": each call resumes the stage it stands in from its checkpoint. Weights come out
# under $OUT (default out/gpu) in files below 16 MiB; `cat` of the parts of a file, in order, restores it. It needs a
# Python with this project's [train] extra; PYTHON names it (default python3).
set -euo pipefail
cd "$(dirname "$0")/../.."

size=${1:-gpu128} minutes=${2:-8.5}
python=${PYTHON:-python3} device=${DEVICE:-auto}
runs=runs/pocket-gpu model=runs/pocket-gpu/$size-model out=${OUT:-out/gpu}
mkdir -p "$runs" "$out"
deadline=$(($(date +%s) + $(printf '%.0f' "$(echo "$minutes * 60" | bc)")))

# a source tree on a bare machine: the packages as setup.py maps them, without an install
if ! "$python" -c "import ip2p_fast.training" 2>/dev/null; then
    "$python" -m pip install --quiet --no-deps --no-build-isolation -e .
fi

for step in rendered:{data,vae,clip,latents,unet,decoder,reader,captions,base,student,few,writer} \
    paper:{triplets,pairs,unfiltered,paper,ablations,control}; do
    route=${step%:*} stage=${step#*:}
    [ -e "$runs/$size-$stage.done" ] && continue
    left=$((deadline - $(date +%s) - 20))
    if [ "$left" -lt 20 ]; then break; fi
    # stopped by the clock, not by its own end: the checkpoint stays and the next call goes on from it
    if timeout --signal=TERM "$left" "$python" -m ip2p_fast.cli train pocket "$stage" --route "$route" --size "$size" \
        --out "$runs" --model "$model" --device "$device" --resume; then
        touch "$runs/$size-$stage.done"
    elif [ $? -ne 124 ]; then
        exit 1
    else
        break
    fi
done

# what there is so far goes out, in parts small enough for any transfer; links to parts of another model do not
for folder in "$model" "$model-base" "$model-student" "$model-writer" "$runs/$size-paper-model"; do
    [ -d "$folder" ] || continue
    (cd "$folder" && find . -type f) | while read -r file; do
        to=$out/$(basename "$folder")/$file
        mkdir -p "$(dirname "$to")"
        if [ "$(stat -c %s "$folder/$file")" -lt $((15 << 20)) ]; then
            cp "$folder/$file" "$to"
        else
            split --bytes=15M --numeric-suffixes "$folder/$file" "$to.part"
        fi
    done
done
if [ -e "$runs/$size-control.done" ]; then echo finished; else echo "not finished: call again"; fi
