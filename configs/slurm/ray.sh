#!/bin/bash
# A study on a SLURM allocation: Ray is started on its nodes, then tunelab runs its trials there.
#
#   sbatch --nodes=4 --cpus-per-task=16 configs/slurm/ray.sh study.yaml --resources cpu=2
#   sbatch --nodes=2 --cpus-per-task=16 --gpus-per-node=4 configs/slurm/ray.sh study.yaml --resources cpu=4,gpu=1
#
# What stands after the script goes to `tunelab compare`. tunelab has to be installed on every node in
# the same versions (a virtual environment on a shared disk, named in TUNELAB_ENV); the study's folder
# is written by the first node alone. Killed or out of time: submit it again, what is done is kept.
#SBATCH --job-name=tunelab
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ -n "${TUNELAB_ENV:-}" ]; then source "$TUNELAB_ENV/bin/activate"; fi
export RAY_USAGE_STATS_ENABLED=0
port=${RAY_PORT:-6379}
cpus=${SLURM_CPUS_PER_TASK:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

started=()
stop() {
  # tunelab first: it keeps what is done and ends its trials; then the nodes.
  if [ -n "${study:-}" ]; then kill -INT "$study" 2>/dev/null || true; wait "$study" || true; fi
  for one in "${started[@]}"; do kill "$one" 2>/dev/null || true; done
}
trap stop EXIT
trap 'exit 143' TERM INT

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$cpus" \
  --include-dashboard=false --block &
started+=($!)
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" bash -c \
    "until ray health-check --address '$address:$port' 2>/dev/null; do sleep 1; done
     exec ray start --address='$address:$port' --num-cpus='$cpus' --block" &
  started+=($!)
fi
until ray health-check --address "$address:$port" 2>/dev/null; do sleep 1; done

# Nodes that join later are used as soon as they are there.
tunelab compare "$@" --engine ray --address "$address:$port" &
study=$!
wait "$study"
