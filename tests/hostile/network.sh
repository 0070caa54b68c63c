#!/bin/sh
# What a machine on the nodes' network gets from a job; see network.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/network.py" "$@"
