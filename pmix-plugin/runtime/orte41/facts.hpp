// SPDX-License-Identifier: BSD-3-Clause
// What a snapshot writes down of the job as ORTE knows it (RuntimeAdapter::describe_job()).
#pragma once

#include <cstdint>
#include <string>

#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin::orte41 {

// mpirun's standard input when it had read nothing of it yet.
struct StartOfInput {
    std::string path;  // empty: no regular file
    uint64_t offset = 0;
};

// Of this process; called before ranks are launched.
StartOfInput start_of_input();

// mpirun only, on ORTE's main thread. Texts are bytes as they are, not always UTF-8.
JobDescription description_of_job(const StartOfInput& input);

}  // namespace ghost::plugin::orte41
