#!/bin/sh
# ghost run, export, import, checkpoint, restart and dup on this machine; see plain_verbs.py. With
# GHOST_TEST_USER=NAME root has them run as that user of the machine.
. "$(dirname "$0")/../suite.sh"
needs criu
here=$(dirname "$0")
if [ "$(id -u)" = 0 ] && [ -n "$GHOST_TEST_USER" ]; then
    exec env HOME=/ PATH=/usr/local/bin:/usr/bin:/bin setpriv --reuid "$GHOST_TEST_USER" \
        --regid "$(id -g "$GHOST_TEST_USER")" --init-groups python3 "$here/plain_verbs.py" "$@"
fi
[ "$(id -u)" = 0 ] || unshare --user true 2> /dev/null || skip "needs root or a user name space"
exec python3 "$here/plain_verbs.py" "$@"
