#!/usr/bin/env bash
# A Cloud TPU slice, of one host or many, through queued resources.
#
#   export TPU_PROJECT=... TPU_ZONE=us-west4-a TPU_NAME=tga TPU_TYPE=v5litepod-16
#   export TPU_SHARE=10.0.0.2:/share   # NFS (Filestore) for workdir, data and compiled programs
#   launch/tpu.sh create               # asks for the slice, waits, stages the code
#   launch/tpu.sh data gs://bucket/llava
#   launch/tpu.sh run --config=configs/llava_mistral_7b.py --workdir=/mnt/share/runs/tga-7b
#   launch/tpu.sh logs
#   launch/tpu.sh resume --config=...  # as run, for a slice that was taken away: a new one first
#   launch/tpu.sh delete
#
# TPU_SPOT=1 asks for spot capacity, TPU_SLICES=2 for two slices. With DRY_RUN=1 the commands are
# printed and nothing is run. Names come from the environment only. One host needs no TPU_SHARE.
set -euo pipefail

: "${TPU_NAME:?set TPU_NAME, a name for the slice}"
: "${TPU_ZONE:?set TPU_ZONE, for example us-west4-a}"
: "${TPU_PROJECT:?set TPU_PROJECT, the cloud project}"
TPU_TYPE=${TPU_TYPE:-v5litepod-8}
case $TPU_TYPE in # the images that Google names for them
  v4-*) image=tpu-ubuntu2204-base ;;
  v5litepod-*) image=v2-alpha-tpuv5-lite ;;
  v5p-*) image=v2-alpha-tpuv5 ;;
  v6e-*) image=v2-alpha-tpuv6e ;;
  *) image=${TPU_VERSION:?set TPU_VERSION, the image for a $TPU_TYPE} ;;
esac
TPU_VERSION=${TPU_VERSION:-$image}
TPU_SLICES=${TPU_SLICES:-1}
WHERE=(--project="$TPU_PROJECT" --zone="$TPU_ZONE")
CODE=$(cd "$(dirname "$0")/.." && pwd)
CACHE=
[[ -z ${TPU_SHARE:-} ]] || CACHE=/mnt/share/compile_cache

do_or_show() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

queued() { do_or_show gcloud compute tpus queued-resources "$@" "${WHERE[@]}"; }

# The nodes of the resource: one, or one a slice.
nodes() {
  local i
  if ((TPU_SLICES == 1)); then
    echo "$TPU_NAME"
  else
    for ((i = 0; i < TPU_SLICES; i++)); do echo "$TPU_NAME-$i"; done
  fi
}

# on_workers WORKER COMMAND: on that worker, or "all", of every slice.
on_workers() {
  local node
  for node in $(nodes); do
    do_or_show gcloud compute tpus tpu-vm ssh "$node" "${WHERE[@]}" --worker="$1" --command="$2"
  done
}

create() {
  local more=()
  [[ -z ${TPU_SPOT:-} ]] || more+=(--spot)
  if ((TPU_SLICES == 1)); then
    more+=(--node-id="$TPU_NAME")
  else
    more+=(--node-prefix="$TPU_NAME" --node-count="$TPU_SLICES")
  fi
  queued create "$TPU_NAME" --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_VERSION" \
    "${more[@]}"
  wait_until_active
  stage
}

state() {
  gcloud compute tpus queued-resources describe "$TPU_NAME" "${WHERE[@]}" \
    --format='value(state.state)'
}

wait_until_active() {
  if [[ -n ${DRY_RUN:-} ]]; then
    queued describe "$TPU_NAME" --format='value(state.state)'
    return
  fi
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    case $now in
      FAILED | SUSPENDED) echo "the request is $now: delete it and create again" >&2 && exit 75 ;;
    esac
    echo "$(date +%T) $now" >&2
    sleep 30
  done
}

stage() {
  local archive node
  archive=$(mktemp -d)/tga_jax.tar.gz
  do_or_show git -C "$CODE" archive --format=tar.gz --output="$archive" HEAD
  for node in $(nodes); do
    do_or_show gcloud compute tpus tpu-vm scp "$archive" "$node:tga_jax.tar.gz" "${WHERE[@]}" \
      --worker=all
  done
  [[ -z ${TPU_SHARE:-} ]] || on_workers all "sudo apt-get install -qqy nfs-common && \
sudo mkdir -p /mnt/share && { mountpoint -q /mnt/share || sudo mount -t nfs $(printf %q "$TPU_SHARE") /mnt/share; }"
  # The images have Python 3.10; uv brings the one that this project wants.
  on_workers all "mkdir -p tga && tar -xzf tga_jax.tar.gz -C tga && cd tga && \
python3 -m pip install -q --user uv && python3 -m uv venv -q --allow-existing --seed --python 3.11 .venv && \
.venv/bin/pip install -q -r requirements.txt \"jax[tpu]==0.10.2\""
}

# By docs/plans.md a product with gathered weights in one piece halves the memory traffic of a v6e.
WHOLE="--config.compiler_options=('xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000',)"

run() {
  [[ $TPU_TYPE != v6e-* || "$*" == *config.compiler_options* ]] || set -- "$@" "$WHOLE"
  # nohup: the run outlives this connection. retry.sh starts it again until it is done.
  on_workers all "cd tga && ${CACHE:+JAX_COMPILATION_CACHE_DIR=$CACHE }nohup launch/retry.sh \
.venv/bin/python -m tga_jax.main$(printf ' %q' "$@") >> run.log 2>&1 < /dev/null & echo started"
}

command=${1:-}
(($# == 0)) || shift
case $command in
  create) create ;;
  data)
    : "${TPU_SHARE:?set TPU_SHARE: the data goes there}"
    : "${1:?give the bucket folder that holds the data}"
    do_or_show gcloud compute tpus tpu-vm ssh "$(nodes | head -n 1)" "${WHERE[@]}" --worker=0 \
      --command="gcloud storage rsync -r $(printf %q "$1") /mnt/share/data"
    ;;
  run) run "$@" ;;
  resume)
    queued delete "$TPU_NAME" --force --quiet
    create
    run "$@"
    ;;
  logs)
    do_or_show gcloud compute tpus tpu-vm ssh "$(nodes | head -n 1)" "${WHERE[@]}" --worker=0 \
      --command="tail -n 50 -f tga/run.log"
    ;;
  delete) queued delete "$TPU_NAME" --force --quiet ;;
  *)
    grep '^#' "$0" | sed -n '2,15p' | cut -c3-
    exit 2
    ;;
esac
