#!/bin/sh
# rpcgen RPCGEN INPUT OUTPUT: the XDR functions, including their header by its name and not by where the source was.
set -e
"$1" -c -o "$3.tmp" "$2"
sed 's|^#include ".*remote\.h"|#include "rpc/remote.h"|' "$3.tmp" > "$3"
rm "$3.tmp"
