#!/usr/bin/env bash
# A command on GPU nodes under Slurm: one task a node, which takes all of its GPUs.
# Usage: launch/slurm.sh [--dry-run] [-N NODES] [-g GPUS_A_NODE] [-t TIME] [-p PARTITION] COMMAND...
#   launch/slurm.sh -N 4 -g 8 -t 12:00:00 python -m ape_jax.main --config clip:... --workdir DIR
# The work directory must be on storage that all nodes see. Before its time is up the job is asked to
# end: it writes a checkpoint, and is queued again by Slurm where that is allowed.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

nodes=1 gpus=8 limit=24:00:00 partition='' dry_run=''
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
while getopts "N:g:t:p:" flag; do
  case $flag in
    N) nodes=$OPTARG ;;
    g) gpus=$OPTARG ;;
    t) limit=$OPTARG ;;
    p) partition=$OPTARG ;;
    *) fail "expected [--dry-run] [-N NODES] [-g GPUS] [-t TIME] [-p PARTITION] COMMAND..." ;;
  esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || fail "expected a command"
for number in "$nodes" "$gpus"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "'$number' is not a number of nodes or GPUs"
done

# JAX reads the coordinator and the number of processes from Slurm itself.
printf -v command '%q ' "$@"
options=(
  --job-name=ape_jax
  --nodes="$nodes"
  --ntasks-per-node=1
  --gpus-per-node="$gpus"
  --time="$limit"
  --signal=TERM@120
  --requeue
  --open-mode=append
  --output=ape_jax-%j.log
)
if [ -n "$partition" ]; then options+=(--partition="$partition"); fi
options+=(--wrap "srun --kill-on-bad-exit=1 $command")
if [ -n "$dry_run" ]; then
  printf '%q ' sbatch "${options[@]}"
  echo
  exit
fi
command -v sbatch >/dev/null || fail "sbatch was not found; run this on a login node of the cluster"
exec sbatch "${options[@]}"
