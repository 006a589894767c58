#!/usr/bin/env bash
# Several processes of one run on this machine, to try out what a cluster will do:
#
#   launch/local.sh PROCESSES [FLAGS OF THE PROGRAM]
#
# SIGTERM and Ctrl-C reach every process. Exit code: the highest of the processes'.
set -u
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
count=${1:?how many processes?}
shift
@EXPORTS@
set -- @ARGS@ "$@"
python=${PYTHON:-python3}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

pids=()
# Ctrl-C reaches it too, and what the processes say after it is the most interesting.
prefix() { trap '' INT && sed -u "s/^/$1: /"; }
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < count; i++)); do
  LAUNCH_COORDINATOR=127.0.0.1:$port LAUNCH_NUM_PROCESSES=$count LAUNCH_PROCESS_ID=$i \
    "$python" "$bundle/run.py" "$@" > >(prefix "$i") 2> >(prefix "$i" >&2) &
  pids+=($!)
done

worst=0
for pid in "${pids[@]}"; do
  # A signal ends the waiting early: go on until the process itself has ended.
  while :; do
    wait "$pid"
    status=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  ((status > worst)) && worst=$status
done
exit "$worst"
