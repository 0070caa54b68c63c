#!/bin/sh
# ghost dup between two nodes of a virtual cluster; see plain_dup.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/plain_dup.py" "$@"
