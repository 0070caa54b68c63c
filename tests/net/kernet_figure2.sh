#!/bin/sh
# The paper's example over three nodes of a virtual cluster; see kernet_figure2.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
exec python3 "$(dirname "$0")/kernet_figure2.py"
