// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/job_files.hpp"

#include "base/log.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 1000;

}  // namespace

void Events::open(const std::string& folder) {
    if (!folder_.empty()) return;
    folder_ = folder;
    for (Json& line : waiting_) write(std::move(line));
    waiting_.clear();
}

void Events::add(const char* what, const Json& more) {
    Json line = {{"time", utc_now()}, {"event", what}};
    line.update(more);
    if (!folder_.empty()) return write(std::move(line));
    waiting_.push_back(std::move(line));
    if (waiting_.size() > most_waiting) waiting_.pop_front();
}

void Events::write(Json line) {
    background_.run([folder = folder_, job = job_.job_name(), line = std::move(line)] {
        if (auto done = append_event(folder, job, line); !done.ok()) {
            log::info("{}", done.error().message());
        }
    });
}

}  // namespace ghost::plugin
