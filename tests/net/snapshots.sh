#!/bin/sh
# Snapshots and restarts of jobs on a virtual cluster; see snapshots.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/snapshots.py" "$@"
