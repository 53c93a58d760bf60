#!/usr/bin/env bash
# send_volume.sh [STUDY]: plays the scanner and sends a study to the archive.
#
# STUDY is a folder with DICOM files in it or below it. Without it: the first study of
# $HIPPO_DATA/TestVolumes or data/TestVolumes, or else a synthetic one that it makes.
# It prints the StudyInstanceUID of each study sent. Exit code 0: the archive confirmed every file; 1: it did not;
# 2: wrong use. Ports and AE titles: network.env, or the environment. HIPPO_SITE=site.env: by TLS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -le 1 ] || wrong_use "it takes one study"
need dcmdump dcmtk
if [ $# -eq 1 ]; then
  study=$1
  [ -e "$study" ] || wrong_use "there is no $study"
else
  study=
  for studies in ${HIPPO_DATA:+"$HIPPO_DATA/TestVolumes"} "$SECTION/../data/TestVolumes"; do
    for folder in "$studies"/*/; do
      if [ -z "$study" ] && [ -d "$folder" ]; then study=$folder; fi
    done
  done
  if [ -z "$study" ]; then
    study=$HIPPO_NETWORK_DIR/synthetic_study
    say "No study of the data is here: making a synthetic one in $study"
    rm -rf "$study"
    "${HIPPO_PYTHON:-python3}" "$SECTION/../data/phantom.py" dicom --out "$study" --seed 1 >&2 ||
      fail "no synthetic study can be made: set HIPPO_PYTHON to a Python with section3/requirements.txt"
  fi
fi
send_files scanner "$HIPPO_SCANNER_AET" "$study"
list_dicom "$study" | xargs -0 dcmdump -q +P StudyInstanceUID | sed -n 's/.*\[\(.*\)\].*/\1/p' | sort -u
