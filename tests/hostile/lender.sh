#!/bin/sh
# ghostd where users may make no user name spaces, and what hostile users get from it; see lender.py. Such a node is
# made of this one: under a file system that is mounted over the root the kernel refuses new user name spaces to all
# (EPERM, clone(2): the caller is in a chroot environment). ghostd runs outside of it.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
[ -x criu/sbin/criu ] || { echo "SKIP: no criu in this build folder (make criu)"; exit 77; }
GHOST_TEST_USER=ghost-borrower
export GHOST_TEST_USER
here=$(dirname "$0")
userdel "$GHOST_TEST_USER" 2> /dev/null
useradd --no-create-home --shell /bin/bash --password '*' "$GHOST_TEST_USER" || exit 1
user=$(id -u "$GHOST_TEST_USER")
remove_user() {
    userdel "$GHOST_TEST_USER" 2> /dev/null
    rm -rf "/dev/shm/ghost-$user".*
}
trap remove_user EXIT
trap 'exit 143' TERM
# a /run of its own, so that no ghostd of this machine's has part in it; the shell stays outside
unshare --mount --propagation private sh -c '
    mount -t tmpfs none /run && mkdir /run/ghost || exit 1
    unshare --mount "$@" --outside $$
    exit $?' sh python3 "$here/lender.py" "$@"
