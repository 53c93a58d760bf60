#!/usr/bin/env bash
# Builds clinic.Dockerfile without Docker and measures a study in the result, without a network and on a read-only root.
# Needs root and the packages buildah, mmdebstrap and bubblewrap; two minutes. What it proves: every step of the file runs,
# and the image holds all that measuring needs. What it does not: anything that only the runtime of Docker does.
#   container.sh STUDY [FOLDER]     STUDY: a folder with DICOM files. FOLDER: where it works (a temporary one)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
if [ $# -lt 1 ] || [ "$1" = --help ]; then
  sed -n '2,5p' "${BASH_SOURCE[0]}" | cut -c3-
  exit 2
fi
for program in buildah mmdebstrap bwrap; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install buildah mmdebstrap bubblewrap" >&2; exit 1; }
done
study="$(realpath "$1")"
if [ $# -gt 1 ]; then
  work="$(mkdir -p "$2" && realpath "$2")"
else
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
fi

BASE=docker.io/library/debian:bookworm-slim
IMAGE=localhost/hippovolume-clinic
store() { buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"; }

echo "The base, as Debian's packages make it"
[ -f "$work/base.tar" ] || mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$work/base.tar"
container="$(store from scratch)"
store add --quiet "$container" "$work/base.tar" / >/dev/null
store commit --quiet --rm "$container" "$BASE" >/dev/null

echo "The packages, by this machine's pip"
python="${HIPPO_PYTHON:-python3}"
"$python" -m pip download --quiet --quiet --dest "$work/wheels" --only-binary :all: --python-version 3.11 \
  --constraint "$root/constraints.txt" -r "$root/section3/requirements-service.txt"

echo "The image, step by step"
store bud --quiet --isolation chroot --pull-never --volume "$work/wheels:/wheels:ro" \
  --build-arg PIP_OPTIONS="--no-index --find-links /wheels" \
  --file "$here/clinic.Dockerfile" --tag "$IMAGE" "$root" >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2; exit 1; }

echo "A study measured in it: no network, a read-only root, a user without rights"
container="$(store from --pull-never "$IMAGE")"
files="$(store mount "$container")"
mkdir -p "$work/out"
bwrap --ro-bind "$files" / --proc /proc --dev /dev --tmpfs /tmp --ro-bind "$study" /mnt --bind "$work/out" /hippo/section3/out \
  --unshare-all --uid 10001 --gid 10001 --clearenv --setenv PATH /venv/bin:/usr/bin:/bin --chdir /hippo/section3/src \
  python inference_dcm.py /mnt --output-dir /hippo/section3/out/study
