#!/bin/sh
# What another user of the nodes gets from a job; see neighbour.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/neighbour.py" "$@"
