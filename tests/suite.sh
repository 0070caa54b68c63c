# SPDX-License-Identifier: BSD-3-Clause
# Sourced by the suites that are shell, or that begin as that.
# shellcheck shell=sh

suites=$(cd "$(dirname "$0")/.." && pwd)
# suite.py, and the laboratory that several suites have
export PYTHONPATH="$suites:$suites/net" PYTHONDONTWRITEBYTECODE=1

# skip REASON: ends the suite.
skip() { echo "SKIP: $*"; exit 77; }

# needs WHAT...: skips it where one of these is missing: root, criu in the build folder, programs.
needs() {
    for need; do
        case $need in
        root) [ "$(id -u)" = 0 ] || skip "needs root" ;;
        criu) [ -x criu/sbin/criu ] || skip "no criu in this build folder (make criu)" ;;
        *) (PATH=$PATH:/usr/sbin && command -v "$need") > /dev/null || skip "no $need" ;;
        esac
    done
}

# make_user NAME: a user of this machine, until the suite ends; $user is his number. A locked account ("!") may not come
# by ssh.
make_user() {
    GHOST_TEST_USER=$1
    export GHOST_TEST_USER
    userdel "$1" 2> /dev/null
    useradd --no-create-home --shell /bin/bash --password '*' "$1" || exit 1
    user=$(id -u "$1")
    trap 'userdel "$GHOST_TEST_USER" 2> /dev/null; rm -rf "/dev/shm/ghost-$user".*' EXIT
    trap 'exit 143' TERM
}

# needs_user_spaces: skips it where that user may make none. Without Ghost's help: whoever cannot is to be told so by the
# suites, not to pass.
needs_user_spaces() {
    setpriv --reuid "$user" --clear-groups --regid "$(id -g "$GHOST_TEST_USER")" unshare --user true ||
        skip "users may not make user name spaces here"
}

# check NAME COMMAND...: a case.
failures=0
check() {
    name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; failures=$((failures + 1)); fi
}

# poll SECONDS COMMAND...: until it succeeds.
poll() {
    end=$(($(date +%s) + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$(date +%s)" -le "$end" ] || return 1
        sleep 0.05
    done
}
