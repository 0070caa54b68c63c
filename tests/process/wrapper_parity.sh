#!/bin/sh
# Runs wrapper_parity.py on what was built; 77 where it cannot run.
here=$(dirname "$0")
. "$here/../suite.sh"
needs root python3 mpirun setpriv
probe=$PWD/tests/process/wrapper_probe
printf '#!/no/such/interpreter\n' > "$probe.cannot" && chmod +x "$probe.cannot"
python3 "$here/wrapper_parity.py" \
    "$PWD/pmix-plugin/wrapper/ghost-wrapper" "$probe" mpirun "$@"
code=$?
rm -f "$probe.cannot"
exit $code
