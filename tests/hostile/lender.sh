#!/bin/sh
# ghostd where users may make no user name spaces, and what hostile users get from it; see lender.py, and for ranks that
# move and are saved lender_ranks.py. Such a node is made of this one: under a file system that is mounted over the root
# the kernel refuses new user name spaces to all (EPERM, clone(2): the caller is in a chroot environment). ghostd runs
# outside of it.
. "$(dirname "$0")/../suite.sh"
needs root criu
make_user ghost-borrower
# a /run of its own, so that no ghostd of this machine's has part in it; the shell stays outside
unshare --mount --propagation private sh -c '
    mount -t tmpfs none /run && mkdir /run/ghost || exit 1
    unshare --mount "$@" --outside $$
    exit $?' sh python3 "$suites/hostile/lender.py" "$@"
status=$?
python3 "$suites/hostile/lender_ranks.py" "$@" || status=1
exit $status
