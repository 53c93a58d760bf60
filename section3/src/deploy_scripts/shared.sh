# shellcheck shell=bash
# What the scripts of this folder have in common. They read it; nobody runs it.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGRAM=$(basename "$0")
SECTION=$(cd "$HERE/../.." && pwd)

say() { echo "$*" >&2; }
fail() {
  say "$PROGRAM: $*"
  exit 1
}
wrong_use() {
  say "$PROGRAM: $*; --help tells more"
  exit 2
}

# The comment at the head of a script is its help.
show_help() { sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//p}' "$0"; }

# need PROGRAM PACKAGE
need() {
  command -v "$1" >/dev/null || fail "$1 is not installed; on Debian: apt-get install --no-install-recommends $2"
}

case ${1:-} in
  -h | --help)
    show_help
    exit 0
    ;;
  -?*) wrong_use "there is no option $1" ;;
esac

set -a
if [ -n "${HIPPO_SITE:-}" ]; then
  [ -r "$HIPPO_SITE" ] || HIPPO_SITE=$HERE/$HIPPO_SITE
  [ -r "$HIPPO_SITE" ] || fail "HIPPO_SITE names no file that can be read"
  # shellcheck source=site.env
  . "$HIPPO_SITE"
fi
# shellcheck source=network.env
. "$HERE/network.env"
HIPPO_NETWORK_DIR=${HIPPO_NETWORK_DIR:-$SECTION/out/network}
HIPPO_INCOMING=${HIPPO_INCOMING:-$HIPPO_NETWORK_DIR/incoming}
HIPPO_RESULTS=${HIPPO_RESULTS:-$HIPPO_NETWORK_DIR/results}
HIPPO_CERTIFICATES=${HIPPO_CERTIFICATES:-$HIPPO_NETWORK_DIR/certificates}
HIPPO_ARCHIVE_INNER_PORT=${HIPPO_ARCHIVE_INNER_PORT:-$HIPPO_ARCHIVE_HTTP_PORT}
set +a
# Without it DCMTK, here and inside Orthanc, waits for the network at each small message: twelve times slower.
export TCP_NODELAY=1

for port in HIPPO_ARCHIVE_DICOM_PORT HIPPO_ARCHIVE_HTTP_PORT HIPPO_ARCHIVE_INNER_PORT \
  HIPPO_NODE_PORT HIPPO_SCANNER_PORT HIPPO_VIEWER_PORT; do
  [[ ${!port} =~ ^[1-9][0-9]{0,4}$ && ${!port} -le 65535 ]] || wrong_use "$port is ${!port}, which is no port"
done
for title in HIPPO_ARCHIVE_AET HIPPO_NODE_AET HIPPO_SCANNER_AET; do
  [[ ${!title} =~ ^[A-Za-z0-9_.-]{1,16}$ ]] || wrong_use "$title is ${!title}, which is no AE title"
done
for switch in HIPPO_TLS HIPPO_REMOTE; do
  [[ ${!switch} =~ ^(true|false)$ ]] || wrong_use "$switch is ${!switch}, neither true nor false"
done
[ -z "$HIPPO_ACCOUNT" ] || [[ $HIPPO_ACCOUNT =~ ^[^:\"\\$]+:[^\"\\$]+$ ]] ||
  wrong_use 'HIPPO_ACCOUNT is to be USER:PASSWORD without quotation mark, backslash and dollar'

SCHEME=http
if [ "$HIPPO_TLS" = true ]; then SCHEME=https; fi
ARCHIVE_URL=$SCHEME://$HIPPO_ADDRESS:$HIPPO_ARCHIVE_HTTP_PORT
VIEWER_URL=$SCHEME://$HIPPO_ADDRESS:$HIPPO_VIEWER_PORT

# tls_options WHO: puts into the array TLS what makes a program of DCMTK speak as WHO (archive, node, scanner).
tls_options() {
  TLS=()
  if [ "$HIPPO_TLS" = true ]; then
    need_certificates "$1"
    TLS=(+tls "$HIPPO_CERTIFICATES/$1.key" "$HIPPO_CERTIFICATES/$1.crt" +cf "$HIPPO_CERTIFICATES/authority.crt" -rc)
  fi
}

need_certificates() {
  local file
  for file in authority.crt "$1.key" "$1.crt"; do
    [ -r "$HIPPO_CERTIFICATES/$file" ] ||
      fail "there is no $HIPPO_CERTIFICATES/$file; make_certificates.sh makes those of a test authority"
  done
}

# ask_archive PATH [CURL OPTIONS]: what Orthanc's own interface answers.
ask_archive() {
  # By --config, as others can read a command line; past any proxy, as patients' data go nowhere else.
  curl -fsS --noproxy '*' --max-time 60 --config <(
    if [ -n "$HIPPO_ACCOUNT" ]; then echo "user = \"$HIPPO_ACCOUNT\""; fi
    if [ "$HIPPO_TLS" = true ]; then
      printf '%s = "%s"\n' cacert "$HIPPO_CERTIFICATES/authority.crt" \
        cert "$HIPPO_CERTIFICATES/node.crt" key "$HIPPO_CERTIFICATES/node.key"
    fi
  ) "${@:2}" "$ARCHIVE_URL$1"
}

archive_answers() {
  ask_archive /system -o /dev/null 2>/dev/null &&
    dicom_answers scanner "$HIPPO_SCANNER_AET" "$HIPPO_ARCHIVE_AET" "$HIPPO_ARCHIVE_DICOM_PORT"
}
listener_answers() { dicom_answers archive "$HIPPO_ARCHIVE_AET" "$HIPPO_NODE_AET" "$HIPPO_NODE_PORT"; }
viewer_answers() { curl -fsSk --noproxy '*' --max-time 60 -o /dev/null "$VIEWER_URL/" 2>/dev/null; }

# dicom_answers WHO CALLING CALLED PORT: whether a C-ECHO comes back.
dicom_answers() {
  tls_options "$1"
  echoscu -q "${TLS[@]}" -to 10 -ta 10 -td 10 -aet "$2" -aec "$3" "$HIPPO_ADDRESS" "$4" 2>/dev/null
}

# need_free PORT VARIABLE WHAT. Without it a server that was there before would answer for the one that could not start.
need_free() {
  if (exec 3<>"/dev/tcp/$HIPPO_ADDRESS/$1") 2>/dev/null; then
    fail "somebody already listens on port $1, which is for $3; another port goes into $2"
  fi
}

# wait_for PROCESS COMMAND: until the command succeeds. False if the process ended, or after ten minutes.
wait_for() {
  local process=$1 give_up=$((SECONDS + 600))
  shift
  until "$@"; do
    kill -0 "$process" 2>/dev/null && [ $SECONDS -lt $give_up ] || return 1
    sleep 0.1
  done
  kill -0 "$process" 2>/dev/null
}

# send_files WHO CALLING PATH...: C-STORE of files and folders to the archive, and the count of what it confirmed.
send_files() {
  local who=$1 calling=$2 output status=0 confirmed given
  shift 2
  need python3 python3
  local paths=() path
  for path in "$@"; do paths+=("$(realpath "$path")"); done # a name that begins with - or @ is something else to DCMTK
  tls_options "$who"
  if [ "$HIPPO_TLS" = true ]; then
    # dcmsend has no TLS here. -R: storescu's own list of storage classes lacks Segmentation and Comprehensive 3D SR.
    need storescu dcmtk
    output=$(storescu -v -R "${TLS[@]}" -nh +sd +r -aet "$calling" -aec "$HIPPO_ARCHIVE_AET" \
      "$HIPPO_ADDRESS" "$HIPPO_ARCHIVE_DICOM_PORT" "${paths[@]}" 2>&1) || status=$?
  else
    # dcmsend proposes what the files need, compressed ones too.
    need dcmsend dcmtk
    output=$(dcmsend -v -nh +sd +r -aet "$calling" -aec "$HIPPO_ARCHIVE_AET" \
      "$HIPPO_ADDRESS" "$HIPPO_ARCHIVE_DICOM_PORT" "${paths[@]}" 2>&1) || status=$?
  fi
  confirmed=$(grep -cE 'Received (C-STORE|Store) Response \((Success|Warning)' <<<"$output") || true
  given=$(count_dicom "${paths[@]}")
  [ "$given" -gt 0 ] || fail "there is no DICOM file in $*"
  if [ "$status" -ne 0 ] || [ "$confirmed" -ne "$given" ]; then
    grep -E '^[EF]:|Response \([^SW]' <<<"$output" | head -n 5 >&2 || true
    fail "the archive confirmed $confirmed of $given files"
  fi
  say "The archive $HIPPO_ARCHIVE_AET confirmed $confirmed files."
}

# Files with the mark DICM after 128 bytes, those that the senders take; one NUL after each.
list_dicom() {
  python3 - "$@" <<'END'
import os, sys

for top in sys.argv[1:]:
    folders = [(top, "", [""])] if os.path.isfile(top) else sorted(os.walk(top))
    for folder, _, names in folders:
        for path in sorted(os.path.join(folder, name) if name else folder for name in names):
            with open(path, "rb") as file:
                if file.read(132)[128:] == b"DICM":
                    sys.stdout.buffer.write(os.fsencode(path) + b"\0")
END
}
count_dicom() { list_dicom "$@" | tr -dc '\0' | wc -c; }

# stop_all: ends the processes of the array CHILDREN and waits until they are gone.
CHILDREN=()
stop_all() {
  trap '' INT TERM HUP # once is enough
  local child
  for child in "${CHILDREN[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
  for child in "${CHILDREN[@]}"; do wait "$child" 2>/dev/null || true; done
}
