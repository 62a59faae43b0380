#!/bin/sh
# rpcgen.sh RPCGEN -h|-c INPUT OUTPUT: rpcgen does not replace files, and includes the header by where the source was.
set -e
rm -f "$4" "$4.tmp"
"$1" "$2" -o "$4.tmp" "$3"
sed 's|^#include ".*remote.*\.h"|#include "rpc/remote.h"|; s|_TMP_RPCGEN|_RPCGEN|' "$4.tmp" > "$4"
rm "$4.tmp"
