// SPDX-License-Identifier: BSD-3-Clause
// How the verbs of jobs tell their user what became of a request: while it is carried out, and
// afterwards.
#pragma once

#include <functional>
#include <string>

#include "base/json.hpp"
#include "tools/job_client.hpp"

namespace ghost::tools {

// A line of progress at the terminal, begun with what `label` makes of each word of the
// coordinator. It is removed with the last copy of what is returned.
OnProgress progress_line(std::function<std::string(const plugin::RequestProgress&)> label);
// "rank N PHASE"
OnProgress progress_of_ranks();

// The answer's result if it is an object, else an empty one.
Json object_of(const Answer& answer);

// Tells how a request ended: errors, and harm, on standard error; with `json` the object `out`
// with the exit status and the error in it, else what `print` prints. Returns the exit status.
int tell(const Answer& answer, bool json, Json out, const std::function<void()>& print);

// One line of a row of the coordinator's answer to `migrate`.
void print_move(const Json& row);

}  // namespace ghost::tools
