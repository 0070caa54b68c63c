#!/bin/sh
# Runs wrapper_snapshot.py on what was built; 77 where it cannot run.
here=$(dirname "$0")
. "$here/wrapper_needs.sh"
exec python3 "$here/wrapper_snapshot.py" \
    "$PWD/pmix-plugin/wrapper/ghost-wrapper" "$PWD/tests/process/wrapper_probe" \
    "$PWD/tests/process/wrapper_manifest" "$criu" "$@"
