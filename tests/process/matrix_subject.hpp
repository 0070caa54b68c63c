// SPDX-License-Identifier: BSD-3-Clause
// Programs of the matrix: each brings itself into some state, waits until it has been exported on
// one node and imported on another one, and then checks that the state is as it was.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace matrix {

// Says what is wrong; empty: all is as it was.
using Check = std::function<std::string()>;

struct Case {
    const char* name;
    const char* what;  // a row of docs/COVERAGE.md
    // What `ghost export` says then, or ("import: …") `ghost import`; null: it moves. "sees: …": it
    // moves, and the state is not carried: the check is that the program sees that.
    const char* refused;
    // Makes the state in `folder` (shared by the nodes) and returns the check. What it allocates
    // lives as long as the process.
    Check (*begin)(const std::string& folder);
};

extern const std::vector<Case> task_cases, scheduling_cases, setting_cases, signal_cases,
    file_cases, name_cases, object_cases, memory_cases, node_cases;

// Makes the services of this node that node_cases ask, in a process of their own, and ends.
[[noreturn]] void serve();

// Ends the process, which makes the case fail with this reason, when something cannot be set up.
void need(bool condition, const char* what);
// A wrong value as text for a check.
std::string differs(const char* what, long is, long was);

}  // namespace matrix
