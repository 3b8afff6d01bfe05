#!/usr/bin/env bash
# Run a command again until it ends with 0, or with 2 (a mistake that repeating does not mend).
#
#   launch/retry.sh COMMAND [ARGUMENT...]
#
# RETRIES (100) and RETRY_SECONDS (10) between two. SIGTERM is passed on, and ends the repeating.
set -uo pipefail

: "${1:?give the command}"
terminated=
child=
trap 'terminated=1; [[ -z $child ]] || kill -TERM "$child"' TERM
for ((turn = 0; turn <= ${RETRIES:-100}; turn++)); do
  "$@" &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2> /dev/null; do # wait was cut short by a signal
    wait "$child"
    code=$?
  done
  if ((code == 0 || code == 2)) || [[ -n $terminated ]]; then
    exit "$code"
  fi
  echo "ended with $code; again in ${RETRY_SECONDS:-10} s" >&2
  sleep "${RETRY_SECONDS:-10}"
done
exit "$code"
