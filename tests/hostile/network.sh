#!/bin/sh
# What a machine on the nodes' network gets from a job; see network.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/network.py" "$@"
