#!/bin/sh
# What a ghost carries: every program of matrix_subject moves from one node of a virtual cluster to
# another one and checks itself; see matrix.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/matrix.py" "$@"
