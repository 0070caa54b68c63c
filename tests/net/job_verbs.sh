#!/bin/bash
# See job_verbs.py. In the build folder; skipped where no lab can be.
[ "$(id -u)" = 0 ] || { echo "skipped: needs root for a lab"; exit 77; }
[ -x criu/sbin/criu ] || { echo "skipped: no criu in the build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/job_verbs.py" "$@"
