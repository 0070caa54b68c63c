// SPDX-License-Identifier: BSD-3-Clause
// The event log of a job: one line of JOB.events for everything that happens to it
// (docs/SNAPSHOT_FORMAT.md).
#pragma once

#include <deque>
#include <string>

#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator. Lines are kept in memory until open(): a job that is
// never saved leaves no file.
class Events {
  public:
    Events(const JobView& job, Background& background) : job_(job), background_(background) {}

    // From now on lines go to that folder of snapshots, which exists; the first call counts.
    void open(const std::string& folder);
    // Adds {"time", "event": what} and the fields of `more`.
    void add(const char* what, const Json& more = Json::object());

  private:
    void write(Json line);

    const JobView& job_;
    Background& background_;
    std::string folder_;
    std::deque<Json> waiting_;
};

}  // namespace ghost::plugin
