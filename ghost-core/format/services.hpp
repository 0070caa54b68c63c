// SPDX-License-Identifier: BSD-3-Clause
// Services of a node, which stay where they are when a process leaves: what their clients hold of
// them, and what becomes of that. The one table of both; docs/COVERAGE.md has it in words.
#pragma once

#include <string>

namespace ghost::core {

struct Service {
    const char* place;  // of its socket, as unix(7) names it: fnmatch(3); abstract ones with an @
    const char* name;
    // What to do before a process with a connection to it can leave; null: its clients connect anew
    // when they find their connection closed, which is then what they find.
    const char* cure;
};

// The service that listens at this name; null: none that is known.
const Service* service_at(const std::string& socket);

// Whether a file is shared by a service with all programs of its node, which map it anew when they
// find it old: a copy of it goes along that is. Also of names that have been removed.
bool is_shared_copy(const std::string& path);

// The same files as criu is told of them (packaging/criu, ghost-services.c).
std::string shared_copies();

}  // namespace ghost::core
