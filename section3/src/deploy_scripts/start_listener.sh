#!/usr/bin/env bash
# start_listener.sh: the listener of the AI node, storescp of DCMTK, until Ctrl-C.
#
# Each study goes into a folder of its own, study_<StudyInstanceUID>, in HIPPO_INCOMING (default:
# section3/out/network/incoming). It answers to the AE title HIPPOAI, on this machine alone, and only to the archive and
# the scanner.
# Exit code 0: it was stopped; 1: it could not start or ended by itself; 2: wrong use.
# Ports and AE titles: network.env, or the environment. HIPPO_SITE=site.env: TLS, for whoever has a certificate.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -eq 0 ] || wrong_use "it takes no argument"
need storescp dcmtk
need echoscu dcmtk
need python3 python3
need_free "$HIPPO_NODE_PORT" HIPPO_NODE_PORT "the listener"
umask 077
mkdir -p "$HIPPO_INCOMING"
tls_options node
who=(--called "$HIPPO_NODE_AET" --calling "$HIPPO_ARCHIVE_AET" --calling "$HIPPO_SCANNER_AET")
if [ "$HIPPO_TLS" = true ]; then who+=(--certificates); fi

trap 'stop_all; exit 0' INT TERM HUP
trap stop_all EXIT
# +xa: compressed images come as they are. A peer that falls silent is given up, so that it keeps no place.
python3 "$HERE/accept_dicom" "${who[@]}" "$HIPPO_ADDRESS" "$HIPPO_NODE_PORT" \
  storescp --inetd "${TLS[@]}" -aet "$HIPPO_NODE_AET" -od "$HIPPO_INCOMING" --sort-on-study-uid study \
  --filename-extension .dcm +xa -ts 60 -ta 30 -td 60 -pdu 131072 -dhl &
CHILDREN=($!)
wait_for "${CHILDREN[0]}" listener_answers || fail "the listener does not answer"
say "The listener answers: DICOM $HIPPO_NODE_AET at $HIPPO_ADDRESS:$HIPPO_NODE_PORT, into $HIPPO_INCOMING"
wait "${CHILDREN[0]}" || true
fail "the listener ended by itself"
