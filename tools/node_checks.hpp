// SPDX-License-Identifier: BSD-3-Clause
// What a node needs so that ranks can leave it and come to it, tried out rather than looked up in
// version numbers. Used by `ghost doctor`. One thread; forks.
#pragma once

#include <string>
#include <vector>

#include "tools/paths.hpp"

namespace ghost::tools {

// What one check found.
struct Finding {
    bool ok = false;
    std::string state;        // "4.1.4", "Operation not permitted", …
    std::string repair = {};  // instead of the check's, where that depends on what was found
};

// What is not as it could be without it.
enum class For {
    all,      // nothing leaves this node or comes to it
    jobs,     // ranks do not; programs of `ghost run` do
    comfort,  // it is only slower
};

struct Check {
    const char* name;
    For what;
    Finding (*look)(const Paths& paths);
    const char* repair;  // a command, or what to do
};

// All checks in the order they are reported.
const std::vector<Check>& node_checks();

// Those that try the kernel (kernel_checks.cpp).
Finding look_capabilities(const Paths&);
Finding look_pid_namespaces(const Paths&);
Finding look_set_tid(const Paths&);
Finding look_userfaultfd(const Paths&);
Finding look_lender(const Paths&);
Finding look_process_vm_readv(const Paths&);
Finding look_memfd(const Paths&);
Finding look_pagemap_scan(const Paths&);
Finding look_shm(const Paths&);
Finding look_all_faults(const Paths&);
Finding look_realtime(const Paths&);

}  // namespace ghost::tools
