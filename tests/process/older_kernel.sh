#!/bin/sh
# Suites of whole programs on a kernel that looks older than 6.7 (older_kernel.c): which pages are there is read from
# page maps, and nobody knows what was written. All cases but those of what such a kernel lacks.
. "$(dirname "$0")/../suite.sh"
needs root criu
older=$PWD/tests/process/.libs/older_kernel.so
# Tracking of writes, copies before a write, guard pages.
lacks='*Deferred*:*MemoryUnmapped*:*FailedCheckpointReleases*:*GuardPages*:*SecondCheckpointKeeps*:*FreezeWaitsForOrder'
# CRIU_FAULT is theirs.
faults='*InjectedFault*'
worst=0
run() { # PROGRAM CASES
    CRIU_FAULT=135 LD_PRELOAD=$older "tests/process/$1" --gtest_brief=1 --gtest_filter="$2" && echo "ok $1" && return
    worst=1
    echo "not ok $1"
}
doctor=$(LD_PRELOAD=$older tools/ghost doctor)
case $doctor in
    *"optional  PAGEMAP_SCAN "*"comes with Linux 6.7"*"--mode stop, concurrent"*) echo "ok doctor" ;;
    *) worst=1; echo "$doctor"; echo "not ok doctor" ;;
esac
run ghost_checkpoint_test "-$lacks"
run ghost_migration_test "HeldTree*:MovesAgain*:*Held*:*Moves*-$faults"
run ghost_modes_test "Modes.Concurrent*:Modes.WhatCannotBe*"
exit $worst
