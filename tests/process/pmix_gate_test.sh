#!/bin/sh
# Two ranks under the stock mpirun gate and ungate their PMIx clients hundreds of times while fences
# go on; see pmix_gate_app.c. No privilege needed.
. "$(dirname "$0")/../suite.sh"
needs mpirun
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PMIX_MCA_gds=hash
exec timeout 120 mpirun --oversubscribe --bind-to none -np 2 --mca btl self,vader \
    tests/process/pmix_gate_app "${1:-500}"
