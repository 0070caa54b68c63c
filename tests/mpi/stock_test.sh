#!/bin/sh
# The MPI test programs under the stock mpirun: what they say about a move is worth something only
# if they pass without one. No privilege needed.
command -v mpirun >/dev/null || { echo "SKIP: no mpirun in the path"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failed=0
scratch=$(mktemp -d) || exit 99
trap 'rm -rf "$scratch"' EXIT

# expect STATUS PATTERN OPTIONS PROGRAM…: the job ends with the status and prints the pattern.
expect() {
    status=$1 pattern=$2
    shift 2
    timeout 60 mpirun --oversubscribe --bind-to none --mca btl self,tcp --mca btl_tcp_if_include lo \
        "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    got=$?
    if [ $got -ne "$status" ] || ! grep -q "$pattern" "$scratch/out"; then
        echo "FAIL: $* ended with $got, expected $status and \"$pattern\""
        tail -n 5 "$scratch/out" "$scratch/err"
        failed=1
    fi
}

p=tests/mpi
expect 0 '^pattern: 2 rounds, 0 errors' -np 3 $p/pattern --iterations 2
expect 0 '^both_send: 16 messages each, 0 errors' -np 2 $p/both_send --iterations 1
expect 0 '^compute: rank 1: .* 0 errors' -np 2 $p/compute --seconds 0.3
expect 0 '^out end 500$' -np 2 $p/talk --rank 1 --iterations 500
expect 0 '^ledger: 40 steps, .* 0 errors' -np 3 $p/ledger --dir "$scratch" --steps 40 --shared
# Windows over tcp are osc pt2pt's: none with threads, and no end to long puts under MPI_MODE_NOCHECK.
phases=messages,types,collectives,communicators,files,threads
windows=fence,accumulate,pscw,locks,atomics,requests,operations,alone,dynamic,standing
# Nor are its accumulates of pairs with gaps, long vectors, structures and beyond a window's end right.
windows=$windows,scattered,with_requests,swaps,attached,in_order
expect 0 '^coverage: 2 rounds, 0 errors' --mca osc pt2pt -np 3 $p/coverage --dir "$scratch" \
    --phases $phases,$windows
expect 0 '^coverage: 1 rounds, 0 errors' -np 3 $p/coverage --threads 4 --iterations 1 --phases $phases
expect 0 '^guests: 4 rounds, 0 errors' -np 2 $p/guests
touch "$scratch/enough"
expect 0 '^pattern: 0 rounds, 0 errors' -np 2 $p/pattern --until-file "$scratch/enough"
expect 0 '^in end 0 0$' -np 2 $p/talk --stdin
expect 5 'leaver: started' -np 2 $p/leaver --rank 1 --how return --status 5 --after 0.1
expect 6 'leaver: started' -np 2 $p/leaver --rank 1 --how _exit --status 6 --after 0.1
expect 139 'leaver: started' -np 2 $p/leaver --rank 0 --how segv --after 0.1
expect 0 '^holder: .* 0 errors' -np 2 $p/holder --what io_uring --seconds 0.2
expect 0 '^pingpong: rank 1: 512 rounds, .* 0 errors' -np 2 $p/pingpong --iterations 512 --memory 4
expect 0 '^mgs_mpi 300 on 3: error' -np 3 benchmarks/mgs/mgs_mpi 300 1
exit $failed
