#!/bin/sh
# Runs wrapper_snapshot.py on what was built; 77 where it cannot run.
here=$(dirname "$0")
command -v python3 > /dev/null || { echo "skipped: no python3"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 77; }
criu=${GHOST_CRIU:-}
[ -n "$criu" ] || { [ -x "$PWD/criu/sbin/criu" ] && criu=$PWD/criu/sbin/criu; }
[ -n "$criu" ] || criu=$(command -v criu) || { echo "skipped: no criu; make criu"; exit 77; }
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/wrapper_snapshot.py" \
    "$PWD/pmix-plugin/wrapper/ghost-wrapper" "$PWD/tests/process/wrapper_probe" \
    "$PWD/tests/process/wrapper_manifest" "$criu" "$@"
