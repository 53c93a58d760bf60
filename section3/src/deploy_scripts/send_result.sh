#!/usr/bin/env bash
# send_result.sh RESULT...: sends the DICOM objects of results to the archive.
#
# RESULT is a folder as inference_dcm.py writes it, or a file of it.
# Exit code 0: the archive confirmed every file; 1: it did not, or there is none; 2: wrong use.
# Ports and AE titles: network.env, or the environment. HIPPO_SITE=site.env: by TLS.
# inference_dcm.py --send-to-orthanc also reads back what it sent, and compares.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -ge 1 ] || wrong_use "it takes the folder of a result"
for result in "$@"; do
  [ -e "$result" ] || wrong_use "there is no $result"
done
send_files node "$HIPPO_NODE_AET" "$@"
