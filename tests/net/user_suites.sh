#!/bin/bash
# Suites of jobs as an ordinary user has them: the cases that differ most from root's. It makes the user and removes him.
#
# usage: user_suites.sh [all | SUITE [CASE...]]
#   all     every suite, whole: docs/notes/034-suites-of-a-user.md
. "$(dirname "$0")/../suite.sh"
needs root criu
make_user ghost-suites
needs_user_spaces
here=$(dirname "$0")

# What googletest says, as the scripts' lines.
lines='
    function name(line) { sub(/^\[[^]]*\] /, "", line); sub(/[ ,].*/, "", line); return line }
    /^\[       OK \]/ { print "ok " name($0); fflush(); next }
    /^\[  SKIPPED \].* ms\)$/ { print "ok " name($0) " # SKIP " why; next }
    /^\[  FAILED  \].* ms\)$/ { print "not ok " name($0); next }
    /^(ok|not ok|SKIP)/ { print; fflush(); next }
    { print "# " $0; if ($0 != "") why = $0 }'
# mawk would show them when a suite is over
at_once=()
if awk -W version 2> /dev/null < /dev/null | grep -q mawk; then at_once=(-W interactive); fi
worst=0
suite() { # SUITE [CASE...]: the folder of a program is the build's, that of a script the sources'
    local name=$1
    shift
    if [ -x "tests/net/$name" ]; then
        set -- "tests/net/$name" ${1:+--gtest_filter="$(IFS=:; echo "$*")"}
    else
        set -- "$here/$name" "$@"
    fi
    echo "# $name"
    "$@" < /dev/null 2>&1 | awk "${at_once[@]}" "$lines"
    local status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || [ "$status" = 77 ] || worst=1
}

case $1 in
"")
    suite moves_test '*MoveDuringFences' '*InputFollowsRank0' '*TwoRanksAtOnce'
    suite grow_test '*RanksMoveToTheNodeAndBack' '*DrainedNodeIsReplacedAndComesBack'
    suite recover_test '*NodesThatAreLost'
    suite partner_test '*NodeThatIsLost'
    suite xor_test '*NodesThatAreLostOneAfterTheOther'
    suite snapshots.sh by_interval
    suite job_verbs.sh replace
    suite kernet_figure2.sh
    ;;
all)
    for name in moves drain grow recover partner xor coverage children endings requests files contacts placed links streams filters; do
        suite ${name}_test
    done
    for name in orte41_switch_test snapshots snapshot_faults job_verbs kernet_figure2 rank_matrix plain_dup; do
        suite $name.sh
    done
    ;;
*) suite "$@" ;;
esac
exit $worst
