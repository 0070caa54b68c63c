#!/bin/sh
# What a rank carries by a move and by a snapshot: matrix_rank's programs; see rank_matrix.py.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/rank_matrix.py" "$@"
