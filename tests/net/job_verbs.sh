#!/bin/bash
# See job_verbs.py. In the build folder; skipped where no lab can be.
. "$(dirname "$0")/../suite.sh"
needs root criu
exec python3 "$(dirname "$0")/job_verbs.py" "$@"
