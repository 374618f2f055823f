#!/usr/bin/env bash
# A command on N fake devices of this machine's processor.
# Usage: launch/local_devices.sh [--dry-run] N COMMAND...
#   launch/local_devices.sh 8 python -m ape_jax.main --config demo --workdir DIR
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
[ $# -ge 2 ] || fail "expected [--dry-run] N COMMAND..."
[[ $1 =~ ^[1-9][0-9]*$ ]] || fail "N is '$1'; write a number of devices"
devices=$1 && shift

export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
if [ -n "$dry_run" ]; then
  printf 'JAX_PLATFORMS=cpu XLA_FLAGS=%q' "$XLA_FLAGS"
  printf ' %q' "$@"
  echo
  exit
fi
exec "$@"
