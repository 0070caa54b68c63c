#!/bin/sh
# ghost run, export, import, checkpoint, restart and dup on this machine; see plain_verbs.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/plain_verbs.py" "$@"
