#!/usr/bin/env bash
# hospital.sh [STUDY]: the whole network on this machine: archive, listener, AI node and viewer; it sends a study, and
# prints where its report is to be seen. Ctrl-C stops all of them.
#
# What is missing is installed from Debian where root runs it; else it says what to install. STUDY: see send_volume.sh.
# HIPPO_PYTHON is the Python of the AI node (make hospital sets it). HIPPO_ONCE=true: it stops once the report is there.
# Exit code 0: stopped after all of it worked; 1: a program is missing, a piece could not start or ended by itself, or
# the report did not come within HIPPO_REPORT_SECONDS (600); 2: wrong use.
# Ports, AE titles and times: network.env, or the environment. HIPPO_SITE=site.env: all of it by TLS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -le 1 ] || wrong_use "it takes one study"
[ $# -eq 0 ] || [ -e "$1" ] || wrong_use "there is no $1"
SERVER=$SECTION/src/ai_server.py
DATABASE=$HIPPO_NETWORK_DIR/node.sqlite
PYTHON=${HIPPO_PYTHON:-python3}
PLUGIN=${HIPPO_DICOMWEB_PLUGIN:-/usr/share/orthanc/plugins/libOrthancDicomWeb.so}

install_what_is_missing() {
  local packages=()
  command -v Orthanc >/dev/null || packages+=(orthanc)
  [ -r "$PLUGIN" ] || packages+=(orthanc-dicomweb)
  command -v storescp >/dev/null && command -v dcmsend >/dev/null && command -v getscu >/dev/null || packages+=(dcmtk)
  command -v curl >/dev/null || packages+=(curl)
  command -v python3 >/dev/null || packages+=(python3)
  command -v openssl >/dev/null || packages+=(openssl)
  if [ -z "${HIPPO_OHIF_TARBALL:-}" ] && ! compgen -G "$HIPPO_NETWORK_DIR/viewer/ohif-*/index.html" >/dev/null; then
    command -v npm >/dev/null || packages+=(npm)
  fi
  [ ${#packages[@]} -gt 0 ] || return 0
  local command="apt-get install --no-install-recommends ${packages[*]}"
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    fail "programs are missing; on Debian, as root: $command"
  fi
  say "Installing ${packages[*]}"
  # Debian would start its own Orthanc, on the same ports. A machine that has a policy keeps it.
  local policy=/usr/sbin/policy-rc.d ours=false
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && ours=true
  fi
  local status=0
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2 || status=$?
  if [ $ours = true ]; then rm -f $policy; fi
  [ $status -eq 0 ] || fail "they could not be installed: $command"
}

# start NAME COMMAND...: in the background, told apart by its name.
declare -A NAMES
start() {
  local name=$1
  shift
  "$@" >&2 & # what we print ourselves is the address alone
  CHILDREN+=($!)
  NAMES[$!]=$name
}

# At every wait: a piece that ended takes the others with it, rather than leaving half a hospital.
all_run() {
  local child
  for child in "${CHILDREN[@]}"; do
    kill -0 "$child" 2>/dev/null || fail "the ${NAMES[$child]} ended by itself"
  done
}

# wait_until WHAT SECONDS COMMAND...
wait_until() {
  local what=$1 give_up=$((SECONDS + $2))
  shift 2
  until "$@"; do
    all_run
    [ $SECONDS -lt $give_up ] || fail "$what"
    sleep 0.2
  done
  all_run
}

# What the node says of the study, in one word and its reason; nothing as long as it works on it.
node_says() {
  "$PYTHON" "$SERVER" status --database "$DATABASE" --json 2>/dev/null | "$PYTHON" -c '
import json, sys

for one in json.load(sys.stdin):
    if one["study_uid"] == sys.argv[1] and one["state"] in ("done", "warning", "failed"):
        print(*filter(None, (one["state"], one["reason"])))
' "$study"
}
node_is_done() { verdict=$(node_says) && [ -n "$verdict" ]; }

report_is_there() {
  local query='{"Level":"Series","Query":{"StudyInstanceUID":"'$study'","SeriesDescription":"HippoVolume.AI*"}}'
  [ "$(ask_archive /tools/find -d "$query" 2>/dev/null | tr -d ' \n[]')" != "" ]
}

end() {
  trap '' INT TERM HUP
  if [ ${#CHILDREN[@]} -gt 0 ]; then
    say "Stopping."
    stop_all
  fi
}

install_what_is_missing
trap end EXIT
trap 'exit 1' INT TERM HUP # until everything is up
if [ "$HIPPO_TLS" = true ] && [ ! -e "$HIPPO_CERTIFICATES/authority.crt" ]; then "$HERE/make_certificates.sh"; fi
umask 077
mkdir -p "$HIPPO_INCOMING" "$HIPPO_RESULTS"

start listener "$HERE/start_listener.sh"
start archive "$HERE/launch_orthanc.sh"
start viewer "$HERE/launch_OHIF.sh"
node=false
if [ -f "$SERVER" ]; then
  node=true
  archive=(--send-to-orthanc --orthanc-host "$HIPPO_ADDRESS"
    --orthanc-port "$HIPPO_ARCHIVE_DICOM_PORT" --orthanc-aec "$HIPPO_ARCHIVE_AET")
  if [ "$HIPPO_TLS" = true ]; then
    archive+=(--ca-file "$HIPPO_CERTIFICATES/authority.crt"
      --tls "$HIPPO_CERTIFICATES/node.key" "$HIPPO_CERTIFICATES/node.crt")
  fi
  start "AI node" "$PYTHON" "$SERVER" --incoming "$HIPPO_INCOMING" --output-dir "$HIPPO_RESULTS" \
    --database "$DATABASE" --quiet-seconds "$HIPPO_QUIET_SECONDS" "${archive[@]}"
else
  say "There is no AI node yet ($SERVER): the study will be routed, and no report will come."
fi
wait_until "the listener does not answer" 600 listener_answers
wait_until "the archive does not answer" 600 archive_answers
wait_until "the viewer does not answer" 600 viewer_answers
if [ $node = true ]; then wait_until "the AI node does not begin" 600 test -s "$DATABASE"; fi

study=$("$HERE/send_volume.sh" "$@")
study=${study%%$'\n'*}
[ -n "$study" ] || fail "nothing was sent"
address="$VIEWER_URL/viewer?StudyInstanceUIDs=$study"
if [ $node = true ]; then
  say "Waiting for the report: the archive routes after $HIPPO_STABLE_SECONDS s without news, the node measures" \
    "after $HIPPO_QUIET_SECONDS s more."
  limit=${HIPPO_REPORT_SECONDS:-600}
  wait_until "the AI node was not done within $limit seconds" "$limit" node_is_done
  report_is_there || fail "the AI node sent no report: $verdict"
  say "The report is there ($verdict):"
else
  wait_until "the study did not reach the listener" 600 test -d "$HIPPO_INCOMING/study_$study"
  say "The study is there, and has been routed; its report is missing with the AI node:"
fi
echo "$address"
if [ "${HIPPO_ONCE:-false}" = true ]; then exit 0; fi
say "Ctrl-C stops everything."
trap 'exit 0' INT TERM HUP
while all_run; do sleep 0.5; done
