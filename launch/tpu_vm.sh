#!/usr/bin/env bash
# A command on every worker of a Cloud TPU slice: makes the slice if there is none of that name, copies
# this repository, sets it up, runs the command on all workers and fetches the work directory.
# Usage: launch/tpu_vm.sh [--dry-run] [--delete] -n NAME -z ZONE -a TYPE [-v IMAGE] -w WORKDIR -- COMMAND...
#   launch/tpu_vm.sh -n mine -z us-central2-b -a v4-32 -w runs/ape -- \
#     python -m ape_jax.main --config ape:... --workdir runs/ape
# Needs gcloud, logged in. --delete gives the slice back at the end, also after a failure.
# To know beforehand whether a run fits: python -m ape_jax.plan.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

usage="expected [--dry-run] [--delete] -n NAME -z ZONE -a TYPE [-v IMAGE] -w WORKDIR -- COMMAND..."
dry_run='' delete='' name='' zone='' type='' workdir='' image=tpu-ubuntu2204-base
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=1 && shift ;;
    --delete) delete=1 && shift ;;
    -n | -z | -a | -v | -w)
      [ $# -ge 2 ] || fail "$usage"
      case $1 in
        -n) name=$2 ;;
        -z) zone=$2 ;;
        -a) type=$2 ;;
        -v) image=$2 ;;
        -w) workdir=$2 ;;
      esac
      shift 2
      ;;
    --) shift && break ;;
    *) fail "'$1' is not known; $usage" ;;
  esac
done
if [ -z "$name" ] || [ -z "$zone" ] || [ -z "$type" ] || [ -z "$workdir" ] || [ $# -eq 0 ]; then
  fail "$usage"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=ape_jax_run

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
tpu() { run gcloud compute tpus tpu-vm "$@" --zone="$zone"; }
everywhere() { tpu ssh "$name" --worker=all --command="$1"; }

[ -n "$dry_run" ] || command -v gcloud >/dev/null || fail "gcloud was not found"
if [ -n "$dry_run" ] ||
  ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
  tpu create "$name" --accelerator-type="$type" --version="$image"
fi
if [ -n "$delete" ]; then trap 'tpu delete "$name" --quiet' EXIT; fi

# What is committed, and nothing else.
archive=$(mktemp -d)/ape_jax.tgz
run git archive --format=tgz --output="$archive" HEAD
tpu scp "$archive" "$name:ape_jax.tgz" --worker=all
everywhere "mkdir -p $home && tar -xzf ape_jax.tgz -C $home"
everywhere "cd $home && . launch/setup.sh && set_up base plan-tpu"
printf -v command '%q ' "$@"
# A TERM that reaches the workers makes them write a checkpoint; the same command resumes.
everywhere "cd $home && . launch/setup.sh && set_up base plan-tpu && $command"
tpu scp --recurse "$name:$home/$workdir" "$workdir" --worker=0
