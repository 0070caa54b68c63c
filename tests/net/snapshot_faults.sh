#!/bin/sh
# Snapshots of jobs to which something happens; see snapshots.py.
exec "$(dirname "$0")/snapshots.sh" --faults "$@"
