#!/bin/sh
# Snapshots and restarts of jobs on a virtual cluster; see snapshots.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/snapshots.py" "$@"
