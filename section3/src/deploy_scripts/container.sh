#!/usr/bin/env bash
# container.sh STUDY [FOLDER]: builds clinic.Dockerfile without Docker, and measures a study in the result.
#
# Without a network, on a read-only root, as a user without rights. Needs root, buildah, mmdebstrap and bubblewrap; two
# minutes. It proves that every step of the file runs, and that the image holds all that measuring needs; not what only
# the runtime of Docker does. FOLDER is where it works, a temporary one without it.
# Exit code 0: the study was measured; 1: it was not; 2: wrong use.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -eq 1 ] || [ $# -eq 2 ] || wrong_use "it takes a study, and a folder to work in"
[ -d "$1" ] || wrong_use "there is no folder $1"
need buildah buildah
need mmdebstrap mmdebstrap
need bwrap bubblewrap
root=$(cd "$SECTION/.." && pwd)
study=$(realpath "$1")
if [ $# -gt 1 ]; then
  work=$(mkdir -p "$2" && realpath "$2")
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi

BASE=docker.io/library/debian:bookworm-slim
IMAGE=localhost/hippovolume-clinic
store() { buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"; }

say "The base, as Debian's packages make it"
[ -f "$work/base.tar" ] || mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$work/base.tar"
container="$(store from scratch)"
store add --quiet "$container" "$work/base.tar" / >/dev/null
store commit --quiet --rm "$container" "$BASE" >/dev/null

say "The packages, by this machine's pip"
python="${HIPPO_PYTHON:-python3}"
"$python" -m pip download --quiet --quiet --dest "$work/wheels" --only-binary :all: --python-version 3.11 \
  --constraint "$root/constraints.txt" -r "$root/section3/requirements-service.txt"

say "The image, step by step"
store bud --quiet --isolation chroot --pull-never --volume "$work/wheels:/wheels:ro" \
  --build-arg PIP_OPTIONS="--no-index --find-links /wheels" \
  --file "$SECTION/src/deploy_scripts/clinic.Dockerfile" --tag "$IMAGE" "$root" >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2; fail "the image cannot be built"; }

say "A study measured in it: no network, a read-only root, a user without rights"
container="$(store from --pull-never "$IMAGE")"
files="$(store mount "$container")"
mkdir -p "$work/out"
bwrap --ro-bind "$files" / --proc /proc --dev /dev --tmpfs /tmp --ro-bind "$study" /mnt --bind "$work/out" /hippo/section3/out \
  --unshare-all --uid 10001 --gid 10001 --clearenv --setenv PATH /venv/bin:/usr/bin:/bin --chdir /hippo/section3/src \
  python inference_dcm.py /mnt --output-dir /hippo/section3/out/study
