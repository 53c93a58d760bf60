#!/usr/bin/env bash
# make_certificates.sh: a test authority, and certificates of it for archive, node, scanner and viewer.
#
# For trying the second configuration (site.env); a real site has an authority of its own. They go to HIPPO_CERTIFICATES
# (default: section3/out/network/certificates) and are good for 30 days, for HIPPO_ADDRESS, localhost and what
# HIPPO_CERTIFICATE_NAMES lists ("DNS:archive.hospital,IP:10.0.0.2"). What is there is not overwritten.
# Exit code 0: they are there; 1: they could not be made, or some are there already; 2: wrong use.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

[ $# -eq 0 ] || wrong_use "it takes no argument"
need openssl openssl
[ ! -e "$HIPPO_CERTIFICATES/authority.crt" ] || fail "there is a $HIPPO_CERTIFICATES/authority.crt already"
umask 077
mkdir -p "$(dirname "$HIPPO_CERTIFICATES")"
unfinished=$(mktemp -d "$HIPPO_CERTIFICATES.XXXXXX") # moved into place whole
trap 'rm -rf "$unfinished"' EXIT

in_silence() { "$@" >"$unfinished/log" 2>&1 || { tail -n 5 "$unfinished/log" >&2 && fail "openssl failed"; }; }
names="IP:$HIPPO_ADDRESS,DNS:localhost${HIPPO_CERTIFICATE_NAMES:+,$HIPPO_CERTIFICATE_NAMES}"
in_silence openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=HippoVolume.AI test authority" \
  -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign \
  -keyout "$unfinished/authority.key" -out "$unfinished/authority.crt"
for who in archive node scanner viewer; do
  in_silence openssl req -newkey rsa:2048 -nodes -subj "/CN=$who" \
    -keyout "$unfinished/$who.key" -out "$unfinished/$who.csr"
  # Each is server and client: the archive is called, and calls the node.
  printf '%s\n' "subjectAltName=$names" basicConstraints=critical,CA:false \
    keyUsage=critical,digitalSignature,keyEncipherment extendedKeyUsage=serverAuth,clientAuth >"$unfinished/extensions"
  in_silence openssl x509 -req -days 30 -in "$unfinished/$who.csr" -extfile "$unfinished/extensions" \
    -CA "$unfinished/authority.crt" -CAkey "$unfinished/authority.key" -CAcreateserial -out "$unfinished/$who.crt"
done
rm -f "$unfinished"/*.csr "$unfinished"/*.srl "$unfinished/extensions" "$unfinished/log"
mkdir -p "$HIPPO_CERTIFICATES"
mv "$unfinished"/* "$HIPPO_CERTIFICATES"
say "A test authority and its certificates are in $HIPPO_CERTIFICATES"
