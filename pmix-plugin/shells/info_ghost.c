/* SPDX-License-Identifier: BSD-3-Clause */
/* `ompi_info --param ghost all`. ompi_info knows the frameworks of Open MPI only and refuses any
 * other name; but it registers every component's parameters first, so that ours can be shown from
 * there. */
#define _GNU_SOURCE
#include "pmix-plugin/shells/info_ghost.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opal_config.h"

#include "opal/mca/base/mca_base_var.h"
#include "opal/runtime/opal_info_support.h"

/* Not 0: this process's command line has --param ghost (or --params, with one or two dashes). */
static int asked_for_ghost(void) {
    char line[4096];
    FILE* file = fopen("/proc/self/cmdline", "r");
    if (!file) return 0;
    const size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[length] = 0;
    int after_param = 0;
    for (const char* word = line; word < line + length; word += strlen(word) + 1) {
        if (after_param && 0 == strcmp(word, "ghost")) return 1;
        const char* name = word + strspn(word, "-");
        after_param = name != word && (0 == strcmp(name, "param") || 0 == strcmp(name, "params"));
    }
    return 0;
}

void ghost_info_if_asked(void) {
    if (0 != strcmp(program_invocation_short_name, "ompi_info") || !asked_for_ghost()) return;
    opal_info_show_mca_params("ghost", "all", OPAL_INFO_LVL_9, false);
    exit(0);
}
