#!/bin/bash
# The bookkeeping of a rank goes from daemon to daemon of a stock mpirun, with stand-ins for restored
# ranks: fences complete, output, input and exit codes come from where the rank is, and the job ends 0
# without a daemon that cannot be reached. Three nodes of a lab of its own. GHOST_TEST_USER=NAME: the
# jobs are that user's.
set -u
. "$(dirname "$0")/../suite.sh"
trap '' PIPE
build=${GHOST_BUILD:-$PWD}
ghost=$build/tools/ghost
needs root
lab=orte4t$$
work=$build/tests/net/orte41.$$
trap '"$ghost" lab down --name $lab >/dev/null 2>&1; rm -rf "$work"' EXIT
mkdir -p "$work/ompi" "$work/pmix"
cp "$build/components/ompi/mca_schizo_ghost.so" "$work/ompi" || exit 1
cp "$build/tests/net/.libs/orte41_client.so" "$work/pmix/pmix_mca_pnet_ghost.so" || exit 1
[ -z "${GHOST_TEST_USER:-}" ] || chown "$GHOST_TEST_USER" "$work"
on_gn1() { "$ghost" lab exec --name $lab ${GHOST_TEST_USER:+--user "$GHOST_TEST_USER"} gn1 "$@"; }
stock=$(ompi_info --parsable --path pkglibdir | cut -d: -f3)
[ -d "$stock" ] || exit 1
"$ghost" lab up --name $lab -n 3 >/dev/null || skip "no lab"

wait_for() { poll 20 [ -e "$1" ] || { echo "not there: $1"; return 1; }; }
start() { # NAME MPIRUN-ARGUMENTS...; input from fifo $run/in, kept open as descriptor 9
    run=$work/$1; shift
    mkdir -p "$run"; mkfifo "$run/in"; orders=0
    [ -z "${GHOST_TEST_USER:-}" ] || chown "$GHOST_TEST_USER" "$run"
    on_gn1 env OMPI_MCA_mca_base_component_path="$work/ompi:$stock" \
        OMPI_MCA_ghost_test="$run" timeout -k 5 60 mpirun --mca ghost 1 -np 3 \
        --host gn1:1,gn2:1,gn3:1 "$@" <"$run/in" >"$run/out" 2>"$run/err" 9>&- &
    job=$!
    exec 9>"$run/in"
}
order() { # JSON
    echo "$1" >"$run/o" && mv "$run/o" "$run/order.$orders"
    wait_for "$run/done.$orders" || return 1
    grep -q '"ok":true' "$run/done.$orders" || { cat "$run/done.$orders"; return 1; }
    orders=$((orders + 1))
}
move() { # RANK TO FENCE CODE STOPS: when the rank has halted there
    wait_for "$run/halted.$1.$3" || return 1
    order '{"op":"move","rank":'$1',"to":'$2',"argv":["'$rank'","8","'$5'","'$3'","'$4'","'$1'","'$named'"]}'
}
finish() { # EXPECTED-STATUS
    echo "late input" >&9; exec 9>&-
    wait $job; status=$?
    check "exit status $status is $1" [ $status = $1 ]
}
output_complete() {
    local r f
    for r in 0 1 2; do for f in $(seq 0 7); do
        [ "$(grep -c "^rank $r passed $f\$" "$run/out")" = 1 ] || { sort "$run/out"; cat "$run/err"; return 1; }
    done; done
    grep -q "^rank 0 read late input" "$run/out"
}
rank=$build/tests/net/orte41_rank
named=0

start around "$rank" 8 2,4,6 0 0 1
check "rank 1 to the third node" move 1 2 2 0 4,6
check "rank 1 to mpirun's node" move 1 0 4 0 6
check "rank 1 back" move 1 1 6 0 none
finish 0
check "fences, output and input around the nodes" output_complete

# The others have contributed to a fence that names all three: to where one of them waits, and back.
named=3
start named "$rank" 8 2,4,6 0 0 1 $named
wait_for "$run/halted.1.2"
sleep 0.2 # until the others have called
check "a move to the third node that is given up" order '{"op":"abandon","rank":1,"to":2}'
check "rank 1 to the third node" move 1 2 2 0 4,6
wait_for "$run/halted.1.4"
check "a move to mpirun's node that is given up" order '{"op":"abandon","rank":1,"to":0}'
check "rank 1 to mpirun's node" move 1 0 4 0 6
check "rank 1 back" move 1 1 6 0 none
finish 0
check "fences of some, around the nodes" output_complete
named=0

start input "$rank" 8 3,5 0 0 0
check "rank 0 off mpirun's node" move 0 1 3 0 5
check "rank 0 back" move 0 0 5 0 none
finish 0
check "output and input of rank 0" output_complete

start code "$rank" 8 3 0 9 2
check "rank 2 to the second node" move 2 1 3 9 none
finish 9

start lost "$rank" 8 3,6 0 0 2
check "rank 2 leaves the third node" move 2 1 3 0 6
"$ghost" lab cut --name $lab gn3
check "third node given up" order '{"op":"lost","node":2}'
check "a move without it" move 2 0 6 0 none
finish 0
check "output without the third node" output_complete
"$ghost" lab heal --name $lab gn3

start end "$rank" 8 3 0 0 2
check "rank 2 leaves the third node" move 2 1 3 0 none
"$ghost" lab cut --name $lab gn3
echo "late input" >&9; exec 9>&-
all_passed() { [ "$(grep -c 'passed 7' "$run/out")" = 3 ]; }
poll 10 all_passed
sleep 1 # mpirun asks its daemons to end, with nothing to see from outside
check "third node given up while mpirun waits for it" order '{"op":"lost","node":2}'
wait $job; status=$?
check "exit status $status is 0" [ $status = 0 ]
# What snapshots need of the runtime beside the switch.
"$ghost" lab heal --name $lab gn3
has_heard() { [ "$(grep -c "^$1\$" "$run/heard")" = "$2" ]; }
heard() { # WHAT TIMES: is so within 10 s
    poll 10 has_heard "$@" || { echo "not heard $2 times: $1"; cat "$run/heard"; return 1; }
}
mpirun_pid() { on_gn1 pgrep -x mpirun; }
control=$build/tests/net/orte41_control
heard_tool() {
    on_gn1 env MPIRUN="$(mpirun_pid)" "$control" tool >"$run/tool" 2>&1
    grep -q "^tool: ERROR" "$run/tool" || { cat "$run/tool"; return 1; }
}
start asks --mca pmix_session_server 1 "$control" rank
check "a rank asks for a snapshot" heard "control stop" 1
check "facts are told" order '{"op":"facts"}'
facts() { grep -q "$1" "$run/facts" || { cat "$run/facts"; return 1; }; }
cp "$run/done.0" "$run/facts"
check "the program and its ranks" facts '"argv":\["'$control'","rank"\],"cwd":"[^"]*","np":3'
check "mpirun's words" facts '"argv":\["mpirun","--mca","ghost","1"'
check "parameters" facts '"parameters":{"ghost":"1"}'
check "no file as input" facts '"stdin":{"offset":0,"path":"","rank":0}'
check "nodes" facts '"name":"gn3","slots":1'
check "the adapter's versions" facts '"runtime":{"name":"Open MPI","pmix":"[^"]*4.2.*","version":"4.1'
check "no taking of SIGTERM" eval '! order "{\"op\":\"signal\",\"signum\":15}"'
orders=$((orders + 1))
check "SIGUSR2 is taken" order '{"op":"signal","signum":12}'
check "SIGURG is taken" order '{"op":"signal","signum":23}'
signal() { on_gn1 kill "-$1" "$(mpirun_pid)"; } # a pid of the node
signal USR2; signal URG
check "SIGUSR2 comes" heard "signal 12" 1
check "SIGURG comes" heard "signal 23" 1
check "a tool asks for a snapshot" heard_tool
touch "$run/done"
finish 0
check "the rank was answered" grep -q "^rank: SUCCESS" "$run/out"

start ends "$control" rank
check "the rank asks again" heard "control stop" 1
echo '{"op":"end","status":85,"why":"ended after its snapshot"}' >"$run/o" && mv "$run/o" "$run/order.0"
finish 85
check "why is said" grep -q "^ended after its snapshot$" "$run/err"
check "and nothing of a failure" eval '! grep -qi "abort\|noticed\|killed\|signal" "$run/err"'

echo "$failures failed"
[ $failures = 0 ]
