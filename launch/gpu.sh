#!/usr/bin/env bash
# Run bert-jax on all GPUs of this machine, or of several machines that share this folder: one
# process a machine, all its GPUs. Installs jax for CUDA 13 if it is missing. Stopped by Ctrl-C or
# SIGTERM it stops them all, after saving; the same command resumes. With --hosts variables of XLA,
# NCCL, caches and jax's precision are passed on. Access tokens are not: other users could read them
# in the list of processes.
#
#   launch/gpu.sh [--hosts A,B,...] [--port N] [--dry-run] -- pretrain CONFIG [--section.field value]...
set -euo pipefail
cd "$(dirname "$0")/.."

hosts='' port=12355 dry=''
die() { echo "gpu.sh: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --hosts) hosts=${2:?} && shift 2 ;;
        --port) port=${2:?} && shift 2 ;;
        --dry-run) dry=1 && shift ;;
        --help) sed -n '2,/^set/s/^# \{0,1\}//p' "launch/${0##*/}"; exit ;;
        --) shift && break ;;
        *) die "unknown argument $1 (see --help)" ;;
    esac
done
[ $# -gt 0 ] || die "no command: expected -- pretrain CONFIG ..."
run() { if [ "$dry" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }

bin=$PWD/.venv/bin
[ "$dry" ] || [ -x "$bin/bert-jax" ] || die "$bin/bert-jax is missing: call make .venv/installed"
plugins='import importlib.util as u; exit(not any(map(u.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))))'
if [ "$dry" ] || ! "$bin/python" -c "$plugins"; then
    version=VERSION
    [ "$dry" ] || version=$("$bin/python" -c 'import jax; print(jax.__version__)')
    run "$bin/pip" install --quiet "jax[cuda13]==$version"
fi
[ "$hosts" ] || { run exec "$bin/bert-jax" "$@"; exit; }

IFS=, read -ra list <<<"$hosts"
pids=$PWD/runs/.gpu/$HOSTNAME-$$ # of this call: others may use the same folder
run mkdir -p "$pids"
[ "$dry" ] || trap 'rm -rf "$pids"' EXIT
# shellcheck disable=SC2329  # the trap calls it
stop() {
    for i in "${!list[@]}"; do
        ssh -n "${list[i]}" "kill -TERM \$(cat $(printf %q "$pids/$i"))" || true
    done
}
trap stop INT TERM
passed='' cache=${JAX_COMPILATION_CACHE_DIR-$PWD/runs/.compiled} # shared: one process writes it
for v in XLA_FLAGS ${!XLA_PYTHON_CLIENT_*} JAX_DEFAULT_MATMUL_PRECISION BERT_JAX_CACHE ${!NCCL_*}; do
    [ -z "${!v-}" ] || passed+=" $(printf %q "$v=${!v}")"
done
children=()
for i in "${!list[@]}"; do
    remote="cd $(printf %q "$PWD") && echo \$\$ > $(printf %q "$pids/$i") && exec env"
    remote+=" JAX_COORDINATOR_ADDRESS=${list[0]}:$port JAX_NUM_PROCESSES=${#list[@]}"
    remote+=" JAX_PROCESS_ID=$i $(printf %q "JAX_COMPILATION_CACHE_DIR=$cache")$passed$(printf ' %q' "$bin/bert-jax" "$@")"
    if [ "$dry" ]; then run ssh -n "${list[i]}" "$remote" && continue; fi
    ssh -n "${list[i]}" "$remote" &
    children+=($!)
done
status=0
for child in "${children[@]}"; do
    code=0
    wait "$child" || code=$?
    while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do # our own signal: wait again
        code=0
        wait "$child" || code=$?
    done
    [ "$code" -le "$status" ] || status=$code
done
exit "$status"
