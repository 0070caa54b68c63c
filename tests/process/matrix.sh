#!/bin/sh
# What a ghost carries: every program of matrix_subject moves from one node of a virtual cluster to
# another one and checks itself; see matrix.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/matrix.py" "$@"
