// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/queue.hpp"

#include <utility>

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 1024;

}  // namespace

bool Queue::add(Operation operation) {
    if (stopped_ || waiting_.size() >= most_waiting) return false;
    waiting_.push_back(std::move(operation));
    if (!soon_) next();
    return true;
}

void Queue::next() {
    if (stopped_ || begun_ || waiting_.empty()) return;
    begun_ = true;
    Operation operation = std::move(waiting_.front());
    waiting_.pop_front();
    operation.begin();
}

// Not at once: the caller is still inside the end of the operation, and a list of refusals must not
// recurse.
void Queue::done() {
    begun_ = false;
    if (soon_ || stopped_) return;
    soon_ = adapter_.after(0, [this] {
        soon_.reset();
        next();
    });
}

void Queue::drop(uint64_t owner) {
    std::erase_if(waiting_, [owner](const Operation& o) { return o.owner == owner; });
}

void Queue::stop(const std::string& why) {
    if (std::exchange(stopped_, true)) return;
    if (soon_) adapter_.cancel(*soon_);
    soon_.reset();
    for (Operation& operation : std::exchange(waiting_, {})) {
        if (operation.refuse) operation.refuse(why);
    }
}

}  // namespace ghost::plugin
