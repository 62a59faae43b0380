#!/bin/sh
# rpcgen.sh RPCGEN -h|-c INPUT OUTPUT: rpcgen does not replace files, and includes the header by where the source was.
set -e
rm -f "$4"
"$1" "$2" -o "$4" "$3"
sed -i 's|^#include ".*remote\.h"|#include "rpc/remote.h"|' "$4"
