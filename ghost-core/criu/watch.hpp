// SPDX-License-Identifier: BSD-3-Clause
// One wait for several descriptors, and what each brings. Private to ghost-core/criu.
#pragma once

#include <cerrno>
#include <functional>
#include <poll.h>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

// Made anew for each wait. One thread.
class Watch {
  public:
    // `act` is called if any of `events` (or an error, or the end) has come; in the order added.
    // A negative descriptor is not waited for.
    void add(int fd, short events, std::function<Status()> act) {
        polls_.push_back({fd, events, 0});
        acts_.push_back(std::move(act));
    }

    // The first failure of an act ends it. False: nothing came in that time. io: poll(2) failed.
    Result<bool> wait(const char* what, int timeout_ms) {
        const int came = poll(polls_.data(), polls_.size(), timeout_ms);
        if (came < 0) {
            if (errno == EINTR) return true;
            return sys_error(what);
        }
        for (size_t i = 0; i < polls_.size(); i++)
            if (polls_[i].revents != 0) GHOST_TRY(acts_[i]());
        return came > 0;
    }

  private:
    std::vector<pollfd> polls_;
    std::vector<std::function<Status()>> acts_;
};

}  // namespace ghost::core
