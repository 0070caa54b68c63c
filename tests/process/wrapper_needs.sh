# Sourced by the suites of one wrapper with real criu: ends with 77 where they cannot run; $criu.
. "$here/../suite.sh"
needs root python3
criu=${GHOST_CRIU:-}
[ -n "$criu" ] || { [ -x "$PWD/criu/sbin/criu" ] && criu=$PWD/criu/sbin/criu; }
[ -n "$criu" ] || criu=$(command -v criu) || skip "no criu (make criu)"
[ -x "$PWD/tests/process/wrapper_probe" ] || { echo "make check TESTS= builds what this runs"; exit 99; }
