#!/bin/sh
# Runs wrapper_move.py on what was built; 77 where it cannot run.
here=$(dirname "$0")
. "$here/wrapper_needs.sh"
exec python3 "$here/wrapper_move.py" \
    "$PWD/pmix-plugin/wrapper/ghost-wrapper" "$PWD/tests/process/wrapper_probe" "$criu" "$@"
