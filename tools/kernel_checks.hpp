// SPDX-License-Identifier: BSD-3-Clause
// Checks of `ghost doctor` that try the kernel: see node_checks.hpp.
#pragma once

#include "tools/node_checks.hpp"

namespace ghost::tools {

Finding look_capabilities(const Paths&);
Finding look_pid_namespaces(const Paths&);
Finding look_set_tid(const Paths&);
Finding look_userfaultfd(const Paths&);
Finding look_process_vm_readv(const Paths&);
Finding look_memfd(const Paths&);
Finding look_pagemap_scan(const Paths&);
Finding look_shm(const Paths&);

}  // namespace ghost::tools
