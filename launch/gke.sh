#!/usr/bin/env bash
# Run bert-jax on a TPU slice in GKE: fills in gke.yaml, hands it to kubectl, follows the logs
# through restarts (jax chooses the process that logs, the others print errors). The image holds this
# repository, installed with [tpu,gcs]; the claim's disk is /data, where relative paths begin. The
# JobSet stays until --delete. Safe to repeat.
#
#   launch/gke.sh --name NAME --image IMAGE --claim CLAIM --hosts 4 [--chips 4] \
#       [--accelerator tpu-v5-lite-podslice] [--topology 4x4] [--dry-run] -- pretrain CONFIG ...
#   launch/gke.sh --name NAME --delete
set -euo pipefail

name='' image='' claim='' hosts='' chips=4 dry='' delete=''
accelerator=tpu-v5-lite-podslice topology=4x4 pause=${PAUSE:-10}
die() { echo "gke.sh: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --name | --image | --claim | --hosts | --chips | --accelerator | --topology)
            printf -v "${1#--}" %s "${2:?}" && shift 2 ;;
        --dry-run) dry=1 && shift ;;
        --delete) delete=1 && shift ;;
        --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
        --) shift && break ;;
        *) die "unknown argument $1 (see --help)" ;;
    esac
done
run() { if [ "$dry" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }
[ "$name" ] || die "--name is missing"
if [ "$delete" ]; then run kubectl delete jobset "$name" && exit; fi
[ "$image" ] && [ "$claim" ] && [ "$hosts" ] || die "--image, --claim and --hosts are needed"
[ $# -gt 0 ] || die "no command: expected -- pretrain CONFIG ..."

yaml=$(python3 -c '
import json, string, sys
fields = dict(zip(sys.argv[2].split(), sys.argv[3:]), ARGS=json.dumps(sys.argv[10:]))
print(string.Template(open(sys.argv[1]).read()).substitute(fields))
' "$(dirname "$0")/gke.yaml" "NAME IMAGE CLAIM HOSTS CHIPS ACCELERATOR TOPOLOGY" \
    "$name" "$image" "$claim" "$hosts" "$chips" "$accelerator" "$topology" "$@")
if [ "$dry" ]; then echo "$yaml"; fi
run kubectl apply -f - <<<"$yaml"

pods=(--selector "jobset.sigs.k8s.io/jobset-name=$name" --prefix "--max-log-requests=$hosts")
while :; do
    run kubectl logs --follow --tail=-1 "${pods[@]}" || true # not there yet, or being started again
    [ "$dry" ] && exit
    state=$(kubectl get jobset "$name" --output 'jsonpath={.status.terminalState}')
    case $state in
        Completed) echo "done" && exit ;;
        Failed) die "the JobSet failed: kubectl describe jobset $name says why" ;;
    esac
    sleep "$pause"
done
