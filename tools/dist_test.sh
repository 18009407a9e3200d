#!/usr/bin/env bash
# Tests a checkpoint with N processes a machine: one a GPU, or on the CPU where there is no GPU.
#
#   tools/dist_test.sh CONFIG CHECKPOINT N [options of test.py]
#
# It runs the mmaqd of the checkout that it lies in, as the scripts in Python do (mim's copy: the
# installed one). Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same on all of them.
set -euo pipefail

if (($# < 3)); then
    echo "usage: $0 CONFIG CHECKPOINT NUMBER_OF_PROCESSES [options of test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
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
    "$HERE/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
