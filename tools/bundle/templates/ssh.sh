#!/usr/bin/env bash
# One process on each host, by ssh with keys and nothing installed there but Python:
#
#   launch/ssh.sh HOST... -- [FLAGS OF THE PROGRAM]
#
# The first host coordinates: the others must reach it by that name (or COORDINATOR) on port
# ${PORT:-@PORT@}. SSH may hold the ssh command with its options. SIGTERM and Ctrl-C reach every
# process. Exit code: the highest of the processes'; 143 means preempted: start it again.
set -u
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
read -ra ssh <<<"${SSH:-ssh -o BatchMode=yes}"
hosts=()
while (($#)) && [[ $1 != -- ]]; do
  hosts+=("$1")
  shift
done
(($#)) && shift
((${#hosts[@]})) || { echo "usage: launch/ssh.sh HOST... -- [FLAGS]" >&2; exit 2; }
set -- @ARGS@ "$@"
flags=$( (($#)) && printf ' %q' "$@")

id=$(sha256sum "$bundle/bundle.json" | cut -c1-16)
there=.cache/grug/bundles/$id
run=$$-$RANDOM
for host in "${hosts[@]}"; do
  tar -C "$bundle" -cf - . | "${ssh[@]}" "$host" "mkdir -p $there && tar -C $there -xf -" || {
    echo "ssh.sh: the bundle could not be copied to $host" >&2
    exit 1
  }
done

pids=()
# shellcheck disable=SC2329  # the trap runs it
stop() {
  local i
  for i in "${!hosts[@]}"; do
    "${ssh[@]}" "${hosts[i]}" "kill -TERM \$(cat $there/$run.$i.pid)" </dev/null &
  done
}
trap stop TERM INT
coordinator=${COORDINATOR:-${hosts[0]##*@}}:${PORT:-@PORT@}
for i in "${!hosts[@]}"; do
  # The shell becomes run.py and that the program: one process id from here to the end.
  "${ssh[@]}" "${hosts[i]}" "echo \$\$ >$there/$run.$i.pid; export LAUNCH_COORDINATOR=$coordinator \
    LAUNCH_NUM_PROCESSES=${#hosts[@]} LAUNCH_PROCESS_ID=$i; \
    exec ${PYTHON:-python3} $there/run.py$flags" </dev/null \
    > >(sed -u "s/^/$i: /") 2> >(sed -u "s/^/$i: /" >&2) &
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
for i in "${!hosts[@]}"; do
  "${ssh[@]}" "${hosts[i]}" "rm -f $there/$run.$i.pid" </dev/null
done
exit "$worst"
