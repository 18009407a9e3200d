#!/usr/bin/env bash
# Trains a config with N processes a machine: one a GPU, or on the CPU where there is no GPU.
#
#   tools/dist_train.sh CONFIG N [options of train.py]
#
# It runs the mmaqd of the checkout that it lies in, as the scripts in Python do (mim's copy: the
# installed one). Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same on all of them.
set -euo pipefail

if (($# < 2)); then
    echo "usage: $0 CONFIG NUMBER_OF_PROCESSES [options of train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
HERE=$(dirname "$0")
NNODES=${NNODES:-1}
if [[ -z ${PORT:-} ]]; then
    PORT=29500 # several machines must agree on it; a single one takes a port that is free
    ((NNODES > 1)) || PORT=$(python -c \
        'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi

export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
exec python "$HERE/processes.py" \
    --nnodes="$NNODES" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="$PORT" \
    --nproc_per_node="$GPUS" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "${@:3}"
