#!/bin/sh
# The resource contract over the classes of docs/examples.
set -eu
run() {
    tests/contract/ghost_resource_test --class-so "$1" --class-parameters "$2" \
        --gtest_filter='*/user*' >"$log" 2>&1 || status=1
    # the cases of the class, and not none of them
    if [ $status = 0 ] && grep -q '  PASSED  . [1-9]' "$log" && ! grep -q 'PASSED  . 0' "$log"; then
        echo "ok $1"
    else
        cat "$log"
        echo "not ok $1"
        status=1
    fi
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
run docs/examples/.libs/object_store.so '{}/objects'
run docs/examples/.libs/tee.so '{}/a|lz4:{}/b'
exit $status
