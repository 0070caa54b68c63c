#!/bin/sh
# What a rank carries by a move and by a snapshot: matrix_rank's programs; see rank_matrix.py.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
exec python3 "$(dirname "$0")/rank_matrix.py" "$@"
