#!/usr/bin/env bash
# One process on each host, by ssh with keys and nothing installed there but Python:
#
#   launch/ssh.sh HOST... -- [FLAGS OF THE PROGRAM]
#
# The first host coordinates: the others must reach it by that name (or COORDINATOR) on port
# ${PORT:-@PORT@}. SSH may hold the ssh command with its options. SIGTERM and Ctrl-C reach every
# process; one that fails ends the others. Exit code: the highest of those that ended by themselves;
# 143 means preempted: start it again.
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

# What any Bourne shell reads as one word; bash's %q is for bash.
quoted() {
  local quote="'\\''"
  printf "'%s'" "${1//\'/$quote}"
}
# Whatever the login shell of a host is, sh reads the text.
in_sh() { printf 'exec sh -c ' && quoted "$1"; }

flags=$(for flag in "$@"; do printf ' ' && quoted "$flag"; done)
exports=@EXPORTS_WORD@
# Secrets take another way than the command, which every user of the host can read.
names="@SECRETS@"
secrets=
for name in $names; do
  [[ ${!name+set} ]] || { echo "ssh.sh: no variable $name here, which the run needs" >&2; exit 2; }
  secrets+="export $name=$(quoted "${!name}");"
done

id=$(sha256sum "$bundle/bundle.json" | cut -c1-16)
there=.cache/grug/bundles/$id
run=$$-$RANDOM
for host in "${hosts[@]}"; do
  tar -C "$bundle" -cf - . | "${ssh[@]}" "$host" "$(in_sh "mkdir -p $there && tar -C $there -xf -")" || {
    echo "ssh.sh: the bundle could not be copied to $host" >&2
    exit 1
  }
done

pids=()
# Ctrl-C reaches it too, and what the processes say after it is the most interesting.
prefix() { trap '' INT && sed -u "s/^/$1: /"; }
# shellcheck disable=SC2329  # the trap runs it
stop() {
  local i
  for i in "${!pids[@]}"; do
    # A host that has only begun has not written its process id yet.
    "${ssh[@]}" "${hosts[i]}" "$(in_sh "for _ in 1 2 3 4 5 6 7 8 9; do \
      [ -s $there/$run.$i.pid ] && break; sleep 1; done; \
      kill -TERM \$(cat $there/$run.$i.pid) 2>/dev/null")" </dev/null &
  done
}
trap stop TERM INT
coordinator=${COORDINATOR:-${hosts[0]##*@}}:${PORT:-@PORT@}
for i in "${!hosts[@]}"; do
  # The shell becomes run.py and that the program: one process id from here to the end. ssh is not
  # called by a function: in the background it would hear Ctrl-C then.
  "${ssh[@]}" "${hosts[i]}" "$(in_sh "echo \$\$ >$there/$run.$i.pid; export LAUNCH_COORDINATOR=$coordinator \
    LAUNCH_NUM_PROCESSES=${#hosts[@]} LAUNCH_PROCESS_ID=$i; eval \"\$(cat)\"; $exports \
    exec ${PYTHON:-python3} $there/run.py$flags </dev/null")" < <(printf %s "$secrets") \
    > >(prefix "$i") 2> >(prefix "$i" >&2) &
  pids+=($!)
done

worst=0
stopped=0
patience=
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    wait "${pids[i]}"
    status=$?
    unset "pids[i]"
    ((status)) && echo "ssh.sh: process $i on ${hosts[i]} ended with $status" >&2
    ((status > worst && !stopped)) && worst=$status
  done
  # The others hear of it by themselves, unless it never met them; they would wait for minutes.
  if ((worst && SECONDS > ${patience:=$((SECONDS + 10))})); then
    stop
    stopped=1
    patience=$((SECONDS + 60))
  fi
  sleep 0.2
done
for i in "${!hosts[@]}"; do
  "${ssh[@]}" "${hosts[i]}" "rm -f $there/$run.$i.pid" </dev/null
done
exit "$worst"
