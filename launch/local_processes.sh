#!/usr/bin/env bash
# A command as P processes of D fake devices each, which talk to each other over the loopback: what
# several hosts do, on one machine. The first process that fails ends the others.
# Usage: launch/local_processes.sh [--dry-run] P D COMMAND...
#   launch/local_processes.sh 2 4 python -m ape_jax.main --config demo --workdir DIR
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
[ $# -ge 3 ] || fail "expected [--dry-run] P D COMMAND..."
for number in "$1" "$2"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "'$number' is not a number of processes or devices"
done
processes=$1 devices=$2 && shift 2

# PORT chooses; else a free one.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=${PORT:-$(free_port)}
settings=(
  JAX_PLATFORMS=cpu
  "XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
  "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port"
  "JAX_NUM_PROCESSES=$processes"
)

if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    printf '%q ' env "${settings[@]}" "JAX_PROCESS_ID=$i" "$@"
    echo
  done
  exit
fi

left=()
stop() {
  for child in "${left[@]}"; do kill "-${1:-TERM}" "$child" 2>/dev/null || true; done
}
alive() {
  for child in "${left[@]}"; do if kill -0 "$child" 2>/dev/null; then return; fi; done
  return 1
}
# Waits for at most so many tenths of a second.
until_ended() {
  for ((tenth = 0; tenth < $1; tenth++)); do
    alive || return 0
    sleep 0.1
  done
}
trap stop INT TERM
for ((i = 0; i < processes; i++)); do
  env "${settings[@]}" "JAX_PROCESS_ID=$i" "$@" &
  left+=($!)
done
code=0
while [ ${#left[@]} -gt 0 ] && [ $code -eq 0 ]; do
  # Not `wait -n`: a signal that comes while it takes note of a child's end loses that child.
  others=()
  for child in "${left[@]}"; do
    if kill -0 "$child" 2>/dev/null; then others+=("$child"); else wait "$child" || code=$?; fi
  done
  left=("${others[@]}")
  [ ${#left[@]} -eq 0 ] || sleep 0.05 || true
done
if [ $code -ne 0 ] && [ ${#left[@]} -gt 0 ]; then
  # They hear of it from each other, and say so themselves.
  until_ended 50
  if alive; then
    echo "a process ended with code $code; ending the others" >&2
    stop
    until_ended 300
    stop KILL
  fi
  wait || true
fi
exit $code
