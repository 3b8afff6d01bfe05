#!/usr/bin/env bash
# A GPU cluster with SLURM: one task a GPU, started again after a preemption or a lost node.
#
#   export SLURM_NODES=4 SLURM_GPUS=8 SLURM_HOURS=24   # and, where needed, SLURM_ACCOUNT_NAME
#   launch/slurm.sh --config=configs/llava_mistral_7b.py --workdir=/shared/runs/tga-7b
#
# With DRY_RUN=1 the command is printed and nothing is submitted. The environment (.venv here, on a
# disk that all nodes see) has "jax[cuda12]==0.10.2" beside requirements.txt.
set -euo pipefail

CODE=$(cd "$(dirname "$0")/.." && pwd)

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  : "${SLURM_NODES:?set SLURM_NODES}"
  if (($# == 0)); then
    grep '^#' "$0" | sed -n '2,8p' | cut -c3-
    exit 2
  fi
  submit=(sbatch --job-name=tga --nodes="$SLURM_NODES" --ntasks-per-node="${SLURM_GPUS:-8}"
    --gpus-per-node="${SLURM_GPUS:-8}" --time="${SLURM_HOURS:-24}:00:00" --requeue
    --open-mode=append --output="${SLURM_LOG:-tga-%j.log}" --signal=TERM@120)
  [[ -z ${SLURM_ACCOUNT_NAME:-} ]] || submit+=(--account="$SLURM_ACCOUNT_NAME")
  submit+=("$CODE/launch/slurm.sh" "$@")
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%q ' "${submit[@]}"
    printf '\n'
  else
    export TGA_CODE=$CODE # the job runs a copy of this script from SLURM's own folder
    exec "${submit[@]}"
  fi
  exit 0
fi

# In the job. One task's end ends the others; 2 is a mistake, anything else is worth another try.
cd "${TGA_CODE:-$CODE}"
code=0
srun --kill-on-bad-exit=1 .venv/bin/python -m tga_jax.main "$@" || code=$?
if ((code == 0 || code == 2)); then
  exit "$code"
fi
if ((${SLURM_RESTART_COUNT:-0} < 100)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
