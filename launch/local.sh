#!/usr/bin/env bash
# Start COMMAND as N processes that train together on this machine, and end them together.
#
#   launch/local.sh [--dry-run] N COMMAND...
#   launch/local.sh 2 bert-jax pretrain configs/tiny_bert.py --data.path corpus --run.dir runs/two
#
# The environment tells each process its index and the others (bert_jax/distributed/process_info.py).
# PORT sets the port of process 0. Each line starts with the index of its process. The exit status
# is the first that is not 0. Each process uses the GPU of its own index; where there are fewer GPUs
# than processes, all use the CPU, unless JAX_PLATFORMS is set.
set -euo pipefail

dry=false
if [[ ${1-} == --dry-run ]]; then
  dry=true
  shift
fi
if [[ ! ${1-} =~ ^[1-9][0-9]*$ || $# -lt 2 ]]; then
  echo "usage: launch/local.sh [--dry-run] N COMMAND...   (N processes, at least 1)" >&2
  exit 2
fi
count=$1
shift

free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 50); do
    # A port is free if nobody on this machine answers there.
    if ! (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  echo "no free port was found: choose one with PORT=..." >&2
  return 1
}

port=${PORT:-$(free_port)}
gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)

if ((count > gpus && gpus > 0)) && [[ -z ${JAX_PLATFORMS-} ]]; then
  echo "local.sh: $count processes, $gpus GPUs: all use the CPU" >&2
  all='JAX_PLATFORMS=cpu'
fi

variables() {
  echo "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port"
  echo "JAX_NUM_PROCESSES=$count"
  echo "JAX_PROCESS_ID=$1"
  [[ -z ${all-} ]] || echo "$all"
  if ((count > 1 && gpus >= count)); then echo "JAX_LOCAL_DEVICE_IDS=$1"; fi
}

if $dry; then
  for ((i = 0; i < count; i++)); do
    echo "$(variables "$i" | tr '\n' ' ')$(printf '%q ' "$@")"
  done
  exit 0
fi

pids=()
pass_on() {
  for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
trap 'pass_on KILL; kill $(jobs -p) 2>/dev/null || true' EXIT # nothing is left behind

for ((i = 0; i < count; i++)); do
  mapfile -t environment < <(variables "$i")
  # In a process group of its own, so that Ctrl-C arrives once, from here.
  setsid env "${environment[@]}" "$@" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  pids+=($!)
done

status=0
while ((${#pids[@]})); do
  code=0
  ended=
  wait -n -p ended "${pids[@]}" || code=$?
  [[ -n ${ended-} ]] || continue # a signal interrupted the waiting
  others=()
  for pid in "${pids[@]}"; do [[ $pid == "$ended" ]] || others+=("$pid"); done
  pids=("${others[@]}")
  if ((code != 0 && status == 0)); then
    status=$code
    if ((code != 143 && code != 130)); then
      # jax ends the others after the heartbeat timeout; on one machine nobody needs to wait.
      echo "local.sh: a process ended with status $code; the others are killed in 20 seconds" >&2
      (sleep 20 && pass_on KILL) >/dev/null 2>&1 &
    fi
  fi
done
exit "$status"
