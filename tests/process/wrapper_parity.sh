#!/bin/sh
# Runs wrapper_parity.py on what was built; 77 where it cannot run.
here=$(dirname "$0")
for need in python3 mpirun setpriv; do
    command -v $need > /dev/null || { echo "skipped: no $need"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 77; }
probe=$PWD/tests/process/wrapper_probe
printf '#!/no/such/interpreter\n' > "$probe.cannot" && chmod +x "$probe.cannot"
PYTHONDONTWRITEBYTECODE=1 python3 "$here/wrapper_parity.py" \
    "$PWD/pmix-plugin/wrapper/ghost-wrapper" "$probe" mpirun "$@"
code=$?
rm -f "$probe.cannot"
exit $code
