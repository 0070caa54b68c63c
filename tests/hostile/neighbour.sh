#!/bin/sh
# What another user of the nodes gets from a job; see neighbour.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/neighbour.py" "$@"
