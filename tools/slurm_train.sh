#!/usr/bin/env bash
# Trains a config on a Slurm cluster.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
#
# It runs the mmaqd of the checkout that it lies in, as the scripts in Python do (mim's copy: the
# installed one). GPUS in all (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the
# environment.
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
HERE=$(dirname "$0")
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
read -r -a MORE <<< "${SRUN_ARGS:-}"

export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
exec srun --partition="$1" \
    --job-name="$2" \
    --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${MORE[@]+"${MORE[@]}"} \
    python -u "$HERE/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
