#!/usr/bin/env bash
# Run bert-jax on a Cloud TPU slice: asks for it through queued resources, copies this repository,
# installs it, starts on all workers and follows the log; after a preemption all of that again,
# from the last checkpoint; deletes the slice at the end. A run that is under way is followed.
#
#   launch/tpu_vm.sh --name NAME --zone ZONE --type v5litepod-16 [--spot] [--bucket BUCKET] \
#       [--runtime VERSION] [--keep] [--dry-run] -- pretrain configs/NAME.py \
#       --data.path gs://BUCKET/corpus --run.dir bucket/runs/NAME
#   launch/tpu_vm.sh --name NAME --zone ZONE --delete
#
# The bucket is mounted as bucket/ on every worker. The run folder belongs there: the disks of a
# slice are not shared, and go with it. A corpus at gs:// is copied to each worker's disk once; from
# bucket/ each row would be a request. XLA_FLAGS, LIBTPU_INIT_ARGS, JAX_DEFAULT_MATMUL_PRECISION and
# BERT_JAX_CACHE are passed on. It needs gcloud, a project with the TPU API, and a bucket that the
# slice may write. A lost process (status 134, 137) is started again, at most five times.
set -euo pipefail

name='' zone='' type='' bucket='' runtime='' spot='' keep='' dry='' delete='' pause=${PAUSE:-20} lost=0 passed=''
say() { echo "tpu_vm.sh: $1" >&2; }
die() { say "$1" && exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --name | --zone | --type | --bucket | --runtime)
            printf -v "${1#--}" %s "${2:?}" && shift 2 ;;
        --spot | --keep | --delete) printf -v "${1#--}" 1 && shift ;;
        --dry-run) dry=1 && shift ;;
        --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
        --) shift && break ;;
        *) die "unknown argument $1 (see --help)" ;;
    esac
done
run() { if [ "$dry" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }
queue() { run gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }
on() { run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"; }
state() { # NONE: no such request. UNKNOWN: gcloud failed, which says nothing of the slice
    if queue describe --format='value(state.state)' 2>"$scratch/error"; then return; fi
    if grep -qiE 'not[_ ]found' "$scratch/error"; then echo NONE && return; fi
    say "gcloud: $(tail -n 1 "$scratch/error")" && echo UNKNOWN
}
remove() { queue delete --force --quiet; }

scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
[ "$name" ] && [ "$zone" ] || die "--name and --zone are needed"
if [ "$delete" ]; then remove && exit; fi
[ $# -gt 0 ] || die "no command: expected -- pretrain CONFIG ..."
[ "$type" ] || die "--type is missing"
case ${runtime:-$type} in
    v5lite*) runtime=v2-alpha-tpuv5-lite ;;
    v5p*) runtime=v2-alpha-tpuv5 ;;
    v6e*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=${runtime:-tpu-ubuntu2204-base} ;;
esac

create() {
    queue create --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" ${spot:+--spot}
}
provision() { # until the slice is there
    local failed=0 unknown=0 answer
    if [ "$dry" ]; then create && state && return; fi
    while :; do
        answer=$(state) && [ "$answer" = UNKNOWN ] && unknown=$((unknown + 1)) || unknown=0
        [ "$unknown" -lt 30 ] || die "gcloud fails, see above: nothing was changed"
        case $answer in
            ACTIVE) return ;;
            NONE) create ;;
            SUSPENDED) remove ;; # used up: it never comes back by itself
            FAILED) # such as no quota, or none free; why is in its state
                say "the request failed ($((failed += 1)) of 3): $(queue describe --format='value(state)' 2>&1)"
                { [ "$failed" -lt 3 ] && remove; } || die "look at the quota, --type and --zone; then --delete" ;;
        esac
        sleep "$pause"
    done
}
preempted() { # the state may follow a lost connection by some time
    for _ in 1 2 3 4 5 6; do
        case $(state) in ACTIVE | UNKNOWN) sleep "$pause" ;; *) return 0 ;; esac
    done
    return 1
}

# shellcheck disable=SC2016  # the workers expand it
define_apt_install='apt_install() { # a new machine may still hold the lock
    sudo apt-get -q update; sudo apt-get -o DPkg::Lock::Timeout=600 -qy install "$@"
}
'
# shellcheck disable=SC2016  # the workers expand it
install="$define_apt_install"'set -e; mkdir -p bert_jax; tar -xzf bert_jax.tgz -C bert_jax; cd bert_jax
python=$(command -v python3.12 || command -v python3.11 || true)
if [ -z "$python" ]; then
    apt_install python3.11-venv; python=python3.11
fi
[ -d .venv ] || "$python" -m venv .venv || { # Debian has venv in a package of its own
    rm -rf .venv; apt_install "${python##*/}-venv"; "$python" -m venv .venv
}
.venv/bin/pip -q install -r requirements.txt "gcsfs>=2025.9"
.venv/bin/pip -q install "jax[tpu]==$(.venv/bin/python -c "import jax; print(jax.__version__)")"
.venv/bin/pip -q install --no-deps -e .'
# shellcheck disable=SC2016  # the workers expand it
mount="$define_apt_install"'set -e; cd bert_jax; mkdir -p bucket
if ! command -v gcsfuse >/dev/null; then
    from=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
    curl -s $from/doc/apt-key.gpg | sudo tee $key >/dev/null
    echo "deb [signed-by=$key] $from gcsfuse-$(lsb_release -cs) main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list
    apt_install gcsfuse
fi
# A checkpoint is committed by renaming its folder, which gcsfuse refuses unless told. On some types
# it keeps metadata for ever; all workers must see the config.json that process 0 has written.
mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=1000000 \
    --metadata-cache-ttl-secs=10 --metadata-cache-negative-ttl-secs=0 '"$bucket"' bucket'
for v in XLA_FLAGS LIBTPU_INIT_ARGS JAX_DEFAULT_MATMUL_PRECISION BERT_JAX_CACHE; do
    [ -z "${!v-}" ] || passed+=" $(printf %q "$v=${!v}")"
done
# jax writes the programs that it has compiled in one process alone, so all must see them
[ -z "$bucket" ] || passed=" JAX_COMPILATION_CACHE_DIR=\$PWD/bucket/.compiled$passed"
command=".venv/bin/bert-jax$(printf ' %q' "$@"); echo \$? > status"
start="cd bert_jax; rm -f status
nohup env$passed bash -c $(printf %q "$command") > log 2>&1 < /dev/null & echo \$! > pid"
follow="cd bert_jax; tail -n +1 --pid=\$(cat pid) -f log"

begin() {
    tar -czf "$scratch/bert_jax.tgz" -C "$(dirname "$0")/.." \
        bert_jax configs launch pyproject.toml requirements.txt README.md LICENSE &&
        run gcloud compute tpus tpu-vm scp "$scratch/bert_jax.tgz" "$name:" --zone="$zone" --worker=all &&
        on all "$install" &&
        { [ -z "$bucket" ] || on all "$mount"; } &&
        on all "$start"
}
# shellcheck disable=SC2016  # the worker expands it
ask='if kill -0 "$(cat bert_jax/pid)"; then echo alive; else echo dead; fi 2>/dev/null'
ready() { # the run is under way, or begins; never beside one that could not be asked
    local answer=dead tries=0
    while [ -z "$dry" ] && { answer=$(on 0 "$ask" 2>/dev/null | tail -n 1) || answer=''; }; do
        [ -z "$answer" ] && [ $((tries += 1)) -lt 6 ] || break
        sleep "$pause"
    done
    case $answer in alive) ;; dead) begin ;; *) return 1 ;; esac
}
while :; do
    provision
    status=lost
    if ready; then
        on all "$follow" || true # jax chooses the process that logs; the others print errors
        status=$(on 0 'cat bert_jax/status' | tail -n 1) || status=lost
    fi
    if [ "$dry" ]; then echo "$status" && remove && exit; fi
    [ "$status" = 0 ] && break
    say "the run ended: $status"
    if preempted; then
        say "the slice was preempted: asking for another, to go on from the last checkpoint"
    elif { [ "$status" = 134 ] || [ "$status" = 137 ]; } && [ $((lost += 1)) -le 5 ]; then
        say "a process was lost: going on from the last checkpoint"
    elif [ "$status" != 143 ]; then
        say "the slice is still there. Look at it: gcloud compute tpus tpu-vm ssh $name --zone=$zone"
        say "go on: the same command. Delete it: $0 --name $name --zone $zone --delete"
        [ "$status" != lost ] || status=1
        exit "$status"
    fi
done
[ "$keep" ] || remove
