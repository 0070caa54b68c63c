#!/bin/sh
# Processes outside of MPI of an ordinary user, who has no privilege on any node: the cases of
# plain_verbs.sh, plain_dup.sh and matrix.sh that differ most from root's. It makes the user and
# removes him. GHOST_TEST_LONG=1: all cases.
. "$(dirname "$0")/../suite.sh"
needs root criu
make_user ghost-verbs
needs_user_spaces
here=$(dirname "$0")

verbs='original_goes_on_and_ghost_too then_kill_and_then_stop packed_encrypted_and_striped
    checkpoint_on_disk checkpoint_in_memory clone_knows dup_here not_started_by_us terminal_and_pipe
    refused_with_its_name doctor_says_what_works where_no_user_name_space_is
    concurrent_while_the_kernel_writes files_come_and_go_in_a_move'
moves='move move_live move_lazy move_hybrid'
carried='openmp deep_tree sessions rseq open_files append pipes unix_sockets posix_timer pidfd message_queue sparse services'
[ -n "$GHOST_TEST_LONG" ] && verbs='' moves='' carried=''

worst=0
for part in "plain_verbs.sh $verbs" "../net/plain_dup.sh $moves" "matrix.sh $carried"; do
    # the words are words
    # shellcheck disable=SC2086
    "$here"/$part || worst=$?
done

# Where root has given the device to the user, which is here so for these two alone.
device='mknod -m 0600 "$1" c $(stat -c "0x%t 0x%T" /dev/userfaultfd) && chown "$2" "$1" &&
    mount --bind "$1" /dev/userfaultfd'
node=$(mktemp -u /var/tmp/ghost-device.XXXXXX)
if [ -e /dev/userfaultfd ] && unshare --mount --propagation private sh -c "$device" sh "$node" "$user" 2> /dev/null; then
    rm -f "$node"
    unshare --mount --propagation private sh -c "$device"' && shift 2 && exec "$@"' sh "$node" "$user" \
        "$here/plain_verbs.sh" doctor_says_what_works concurrent_while_the_kernel_writes > "$node.said" 2>&1 || worst=1
    sed 's/^\(not \)\?ok [a-z_]*/&_with_device/' "$node.said"
else
    echo "ok device # SKIP no device can be made here"
fi
rm -f "$node" "$node.said"
exit $worst
