#!/usr/bin/env bash
# All figures of one GPU in at most 12 minutes, into a folder:
#
#     bash benchmarks/gpu_figures.sh OUT         # one H100 or H200
#     bash benchmarks/gpu_figures.sh OUT tiny    # the same commands at toy size on a CPU
#
# First whether the GPU computes what the CPU does (nothing else is run if not), then a whole TGA step
# beside torch for a 1.1B decoder and a 7B one, then our own choices: attention, remat, batch. Each part has
# a time of its own and leaves a file; a part that fails or runs out of time does not stop the others.
set -u
OUT=${1:?name a folder for the results}
SIZE=${2:-}
mkdir -p "$OUT"

if [ "$SIZE" = tiny ]; then
    SMALL=tiny LARGE=tiny
    DEVICE=(--device cpu --dtype float32 --turns 2 --warmup 1)
    BATCHES="2 4" PATIENCE=10
else
    SMALL=1b LARGE=7b
    DEVICE=(--turns 5 --warmup 2)
    BATCHES="8 16" PATIENCE=1
    nvidia-smi > "$OUT/device.txt" 2>&1
fi

part() {  # NAME SECONDS COMMAND...: its JSON and what it said, and how it ended
    local name=$1 seconds=$2
    shift 2
    local began=$SECONDS
    timeout $((seconds * PATIENCE)) "$@" > "$OUT/$name.json" 2> "$OUT/$name.log"
    local rc=$?
    echo "$name: rc $rc after $((SECONDS - began)) s" | tee -a "$OUT/parts.txt"
    return $rc
}

CHECK=(--mode lora)
[ "$SIZE" = tiny ] && CHECK+=(--device cpu)
part check 140 python -m benchmarks.gpu_check "${CHECK[@]}" || exit 1
part small 150 python -m benchmarks.gpu --size $SMALL "${DEVICE[@]}"
part large 180 python -m benchmarks.gpu --size $LARGE --mode lora,projector --apart "${DEVICE[@]}"
# Our own settings, without torch.
OURS=(python -m benchmarks.gpu --size $SMALL --mode lora --arms tga_jax "${DEVICE[@]}")
part attention_xla 50 "${OURS[@]}" --attention xla
for remat in dots full; do
    for batch in $BATCHES; do
        part "remat_${remat}_batch_$batch" 50 "${OURS[@]}" --remat $remat --batch "$batch"
    done
done
