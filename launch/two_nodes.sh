#!/usr/bin/env bash
# Two machines without a scheduler: start it on both, with the same arguments.
#     HEAD=10.0.0.1 launch/two_nodes.sh kd_r34_r18 --data /data/imagenet --out /shared/runs/a
# The same line again, on both, goes on with the run. To stop early: kill -TERM the two torchrun processes.
# Beside GPUs, NUMA_BINDING=node binds each rank to the cores next to its own (torch 2.9 and newer, with numactl installed).
set -euo pipefail
: "${HEAD:?give the address of one of the two machines: HEAD=10.0.0.1 $0 ...}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
exec .venv/bin/torchrun \
    --nnodes=2 --nproc_per_node="${RANKS_PER_NODE:-8}" \
    --rdzv-backend=c10d --rdzv-endpoint="$HEAD:${PORT:-29500}" --rdzv-id="${JOB:-reflux}" \
    --max-restarts=3 --signals-to-handle=SIGTERM,SIGUSR1,SIGINT ${NUMA_BINDING:+"--numa-binding=$NUMA_BINDING"} \
    launch/imagenet.py "$@"
