#!/bin/sh
# The paper's example over three nodes of a virtual cluster; see kernet_figure2.py.
. "$(dirname "$0")/../suite.sh"
needs root
exec python3 "$(dirname "$0")/kernet_figure2.py"
