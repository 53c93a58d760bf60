#!/usr/bin/env bash
# launch_OHIF.sh: the viewer, OHIF, at http://127.0.0.1:3000 until Ctrl-C. It reads the archive and stores nothing.
#
# At first OHIF is fetched, prebuilt, as its npm package, from the registry that npm is set to, and its checksum is
# compared. HIPPO_OHIF_TARBALL=FILE takes a package that is here already. It is kept in HIPPO_NETWORK_DIR/viewer.
# Exit code 0: it was stopped; 1: it could not start or ended by itself; 2: wrong use.
# Ports: network.env, or the environment. HIPPO_SITE=site.env: HTTPS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -eq 0 ] || wrong_use "it takes no argument"
# 3.13.2 shows series with a VOI LUT Function black, and asks for single-part SEG, which this archive refuses.
VERSION=3.12.10
SHA512=0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA==

need python3 python3
need curl curl
if [ "$HIPPO_TLS" = true ]; then need_certificates viewer; fi
need_free "$HIPPO_VIEWER_PORT" HIPPO_VIEWER_PORT "the viewer"
ohif=$HIPPO_NETWORK_DIR/viewer/ohif-$VERSION
if [ ! -f "$ohif/index.html" ]; then
  need openssl openssl
  mkdir -p "$HIPPO_NETWORK_DIR/viewer"
  unfinished=$(mktemp -d "$HIPPO_NETWORK_DIR/viewer/unfinished.XXXXXX") # moved into place whole
  trap 'stop_all; rm -rf "$unfinished"' EXIT
  trap 'exit 1' INT TERM HUP
  package=${HIPPO_OHIF_TARBALL:-}
  if [ -z "$package" ]; then
    command -v npm >/dev/null ||
      fail "npm is not installed; on Debian: apt-get install --no-install-recommends npm;" \
        "or set HIPPO_OHIF_TARBALL to the package of @ohif/app $VERSION"
    say "Fetching OHIF $VERSION, once (49 MB)"
    (cd "$unfinished" && exec npm pack --silent "@ohif/app@$VERSION" >/dev/null) &
    CHILDREN=($!) # in the background, where it can be stopped
    wait "${CHILDREN[0]}" || fail "npm could not fetch @ohif/app@$VERSION"
    package=$unfinished/ohif-app-$VERSION.tgz
  fi
  [ -r "$package" ] || fail "there is no $package"
  [ "$(openssl dgst -sha512 -binary "$package" | base64 -w0)" = "$SHA512" ] ||
    fail "$package is not the package of @ohif/app $VERSION: its checksum is another"
  # Without what a viewer of heads never loads.
  mkdir "$unfinished/ohif"
  tar xzf "$package" -C "$unfinished/ohif" --no-same-owner --strip-components=2 --exclude='*.map' \
    --exclude=package/dist/ort --exclude=package/dist/dicom-microscopy-viewer package/dist
  mv -T "$unfinished/ohif" "$ohif" 2>/dev/null || [ -f "$ohif/index.html" ] || fail "nothing can be written to $ohif"
  CHILDREN=()
  rm -rf "$unfinished"
fi

certificates=()
if [ "$HIPPO_TLS" = true ]; then certificates=(--certificates "$HIPPO_CERTIFICATES"); fi
trap 'stop_all; exit 0' INT TERM HUP
trap stop_all EXIT
python3 "$HERE/serve_viewer" "$ohif" "$HERE/ohif_config.js" --address "$HIPPO_ADDRESS" --port "$HIPPO_VIEWER_PORT" \
  --archive "$ARCHIVE_URL" "${certificates[@]}" &
CHILDREN=($!)
wait_for "${CHILDREN[0]}" viewer_answers || fail "the viewer does not answer"
say "The viewer answers: $VIEWER_URL"
wait "${CHILDREN[0]}" || true
fail "the viewer ended by itself"
