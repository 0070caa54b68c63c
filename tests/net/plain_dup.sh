#!/bin/sh
# ghost dup between two nodes of a virtual cluster; see plain_dup.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/plain_dup.py" "$@"
