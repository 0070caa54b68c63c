#!/bin/sh
# What a machine on the nodes' network gets from a job that it has no part in; see machine.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/machine.py" "$@"
