#!/bin/sh
# ghost run, export, import, checkpoint, restart and dup on this machine; see plain_verbs.py. With
# GHOST_TEST_USER=NAME root has them run as that user of the machine.
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
here=$(dirname "$0")
if [ "$(id -u)" = 0 ] && [ -n "$GHOST_TEST_USER" ]; then
    exec env HOME=/ PATH=/usr/local/bin:/usr/bin:/bin setpriv --reuid "$GHOST_TEST_USER" \
        --regid "$(id -g "$GHOST_TEST_USER")" --init-groups python3 "$here/plain_verbs.py" "$@"
fi
[ "$(id -u)" = 0 ] || unshare --user true 2> /dev/null || { echo "SKIP: needs root or a user name space"; exit 77; }
exec python3 "$here/plain_verbs.py" "$@"
