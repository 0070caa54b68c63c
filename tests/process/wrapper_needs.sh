# Sourced by the suites of one wrapper with real criu: ends with 77 where they cannot run; $criu.
command -v python3 > /dev/null || { echo "skipped: no python3"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 77; }
criu=${GHOST_CRIU:-}
[ -n "$criu" ] || { [ -x "$PWD/criu/sbin/criu" ] && criu=$PWD/criu/sbin/criu; }
[ -n "$criu" ] || criu=$(command -v criu) || { echo "skipped: no criu; make criu"; exit 77; }
[ -x "$PWD/tests/process/wrapper_probe" ] || { echo "make check TESTS= builds what this runs"; exit 99; }
