#!/bin/bash
# criu believes its cache, down to the addresses it writes code to: one that another user made, or
# may have made, is never loaded; root's own is, on any file system, in the boot it was written in.
# Each case has a /run and a /dev/shm of its own. In the build folder.
set -u
. "$(dirname "$0")/../suite.sh"
ghost=${GHOST:-$PWD/tools/ghost}
criu=$PWD/criu/sbin/criu
needs root criu
[ "$(sed -n 's/.*"patched": *\([a-z]*\).*/\1/p' criu/info.json)" = true ] || skip "criu is not patched"
rundir=$(sed -n 's/.*"rundir": *"\(.*\)".*/\1/p' criu/info.json)
cache=$rundir/criu.kdat

if [ "${1:-}" != inside ]; then
    unshare -m true || skip "this machine refuses new mount name spaces"
    work=$(mktemp -d /var/tmp/ghost-criu-cache.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    unshare -m "$0" inside "$work"
    exit
fi
work=$2

nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
# What criu does with the cache; it may find that the kernel lacks something.
check_criu() { "$criu" check -v4 >"$work/log" 2>&1 || true; }
loads() { check_criu; grep -q "Loaded kdat cache" "$work/log"; }
passes_over() { ! loads; }
says() { grep -q "$1" "$work/log"; }
afresh() { # afresh: nothing there
    umount -l /run /dev/shm 2>/dev/null
    mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=1777 tmpfs /dev/shm
}
ours() { afresh; mkdir -m 700 "$rundir"; check_criu; [ -f "$cache" ]; }

check "the cache is written" ours
cp "$cache" "$work/kdat"
check "and loaded" loads

# as any local user can
taken() {
    afresh
    chmod 755 "$work"; chmod 644 "$work/kdat"
    nobody mkdir -p "$rundir" 2>/dev/null
    nobody cp "$work/kdat" "$cache" 2>/dev/null
    passes_over
}
check "another user's folder is passed over" taken

# as no local user can while /run is root's
foreign_file() { ours && chown 65534 "$cache" && passes_over && says "passed over"; }
foreign_folder() { ours && chown 65534 "$rundir" && passes_over && says "passed over"; }
open_file() { ours && chmod 666 "$cache" && passes_over && says "passed over"; }
linked() { ours && mv "$cache" "$work/aside" && ln -s "$work/aside" "$cache" && passes_over; }
check "a file of another user's is passed over" foreign_file
check "in a folder of another user's too" foreign_folder
check "one that others may write to is passed over" open_file
check "a link is not followed" linked

# what names another boot is in bytes 4 to 7
other_boot() {
    ours || return 1
    printf '\x5a\xa5\x5a\xa5' | dd of="$cache" bs=1 seek=4 conv=notrunc status=none
    passes_over && says Stale && loads
}
check "one of another boot is made anew" other_boot

not_tmpfs() {
    afresh
    mkdir "$work/run" && mount --bind "$work/run" /run && mkdir -m 700 "$rundir" || return 1
    [ "$(stat -f -c %T "$rundir")" != tmpfs ] || { echo "/var/tmp is a tmpfs here"; return 0; }
    check_criu
    loads
}
check "it is kept where /run is no tmpfs" not_tmpfs

# the command makes the folder, and refuses to go on with another user's
subject() { "$ghost" run --detach -- sleep 1000 2>"$work/err"; }
makes_it() {
    afresh
    pid=$(subject) && "$ghost" checkpoint "$pid" --to "$work/ghosts" >"$work/out" 2>&1 &&
        [ "$(stat -c '%u %a' "$rundir")" = "0 700" ] && [ -f "$cache" ]
}
refuses() {
    chown 65534 "$rundir"
    ! "$ghost" checkpoint "$pid" --to "$work/ghosts" >"$work/out" 2>&1 &&
        grep -q "cannot trust $rundir: it belongs to user 65534" "$work/out" && kill -0 "$pid"
}
check "ghost makes the folder, root's alone" makes_it
check "ghost refuses another user's by name" refuses
[ -z "${pid:-}" ] || kill -9 "$pid"
exit $((failures > 0))
