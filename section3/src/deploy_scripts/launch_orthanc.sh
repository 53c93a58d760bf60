#!/usr/bin/env bash
# launch_orthanc.sh: the archive, Orthanc with DICOMweb, until Ctrl-C.
#
# It says when it answers. Exit code 0: it was stopped; 1: it could not start or ended by itself; 2: wrong use.
# Ports and AE titles: network.env, or the environment. By default it answers this machine alone, and only the AE titles
# of network.env; no scripts by HTTP. HIPPO_ACCOUNT=USER:PASSWORD switches accounts on, HIPPO_SITE=site.env TLS.
# What it stores is in HIPPO_NETWORK_DIR/archive (default: section3/out/network/archive), with its log.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -eq 0 ] || wrong_use "it takes no argument"
need Orthanc "orthanc orthanc-dicomweb"
need curl curl
need echoscu dcmtk
need python3 python3
export HIPPO_DICOMWEB_PLUGIN=${HIPPO_DICOMWEB_PLUGIN:-/usr/share/orthanc/plugins/libOrthancDicomWeb.so}
[ -r "$HIPPO_DICOMWEB_PLUGIN" ] ||
  fail "there is no $HIPPO_DICOMWEB_PLUGIN; on Debian: apt-get install --no-install-recommends orthanc-dicomweb;" \
    "elsewhere HIPPO_DICOMWEB_PLUGIN says where it is"
need_free "$HIPPO_ARCHIVE_DICOM_PORT" HIPPO_ARCHIVE_DICOM_PORT "the archive's DICOM"
need_free "$HIPPO_ARCHIVE_HTTP_PORT" HIPPO_ARCHIVE_HTTP_PORT "the archive's HTTP"
if [ "$HIPPO_TLS" = true ]; then
  [ "$HIPPO_ARCHIVE_INNER_PORT" != "$HIPPO_ARCHIVE_HTTP_PORT" ] ||
    wrong_use "HIPPO_ARCHIVE_INNER_PORT is to be another port than HIPPO_ARCHIVE_HTTP_PORT"
  need_free "$HIPPO_ARCHIVE_INNER_PORT" HIPPO_ARCHIVE_INNER_PORT "the archive's HTTP behind its HTTPS"
fi

# Orthanc puts the environment into the places of orthanc.json that name it. Passwords then stand in no file.
export HIPPO_ACCOUNTS_ON=false HIPPO_USER=nobody HIPPO_PASSWORD='' HIPPO_SCRIPTS=$HERE
if [ -n "$HIPPO_ACCOUNT" ]; then
  HIPPO_ACCOUNTS_ON=true HIPPO_USER=${HIPPO_ACCOUNT%%:*} HIPPO_PASSWORD=${HIPPO_ACCOUNT#*:}
fi
if [ "$HIPPO_TLS" = true ]; then
  need_certificates archive
  need_certificates node # with which the scripts ask whether it answers
fi
if [ "$HIPPO_REMOTE" = true ] && { [ "$HIPPO_TLS" = false ] || [ -z "$HIPPO_ACCOUNT" ]; }; then
  fail "HIPPO_REMOTE=true opens the archive to other machines: it wants HIPPO_TLS=true and HIPPO_ACCOUNT"
fi

umask 077
settings=$HIPPO_NETWORK_DIR/archive/settings # Orthanc reads every file of this folder
rm -rf "$settings"
mkdir -p "$settings"
cp "$HERE/orthanc.json" "$settings"
if [ "$HIPPO_TLS" = true ]; then cp "$HERE/orthanc_tls.json" "$settings"; fi
log=$HIPPO_NETWORK_DIR/archive/orthanc.log
trap 'stop_all; exit 0' INT TERM HUP
trap stop_all EXIT
Orthanc "$settings" >"$log" 2>&1 &
CHILDREN=($!)
if [ "$HIPPO_TLS" = true ]; then
  address=$HIPPO_ADDRESS
  if [ "$HIPPO_REMOTE" = true ]; then address=0.0.0.0; fi
  python3 "$HERE/guard_https" "$address" "$HIPPO_ARCHIVE_HTTP_PORT" "$HIPPO_ARCHIVE_INNER_PORT" "$HIPPO_CERTIFICATES" &
  CHILDREN+=($!)
fi
if ! wait_for "${CHILDREN[0]}" archive_answers; then
  grep -E '^E' "$log" | tail -n 5 >&2 || tail -n 5 "$log" >&2
  fail "Orthanc does not answer; its log is $log"
fi
python3 "$HERE/route_again" "$ARCHIVE_URL" &
CHILDREN+=($!)
say "The archive answers: DICOM $HIPPO_ARCHIVE_AET at $HIPPO_ADDRESS:$HIPPO_ARCHIVE_DICOM_PORT," \
  "DICOMweb $ARCHIVE_URL/dicom-web"
wait -n "${CHILDREN[@]}" || true
tail -n 5 "$log" >&2
fail "the archive ended by itself; its log is $log"
