// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/children.hpp"

#include <algorithm>
#include <sys/prctl.h>

#include "base/child.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

namespace {

// For the callbacks ORTE still makes after the end.
Children*& present() {
    static Children* the_children = nullptr;
    return the_children;
}

}  // namespace

Children::Children() {
    present() = this;
    // The tree of a wrapper that dies becomes this daemon's child, not init's: its end can be had.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Children::~Children() {
    present() = nullptr;
}

Result<RuntimeAdapter::Spawned> Children::start(const Start& start, Ended ended) {
    auto pair = control_pair();
    if (!pair) return pair.error();
    ChildRequest request;
    request.argv = start.argv;
    for (const auto& [name, value] : start.environment)
        request.environment.push_back(name + "=" + value);
    std::copy_n(start.stdio, 3, request.stdio.begin());
    request.descriptors = {pair->second.fd()};
    auto child = Child::start(request);  // its own group: ORTE signals that of what it launched
    if (!child) return child.error();
    const pid_t pid = child->release();
    watch(pid, std::move(ended));
    RuntimeAdapter::Spawned spawned;
    spawned.pid = pid;
    spawned.control = std::move(pair->first);
    return spawned;
}

void Children::watch(pid_t pid, Ended ended) {
    const bool known = watched_.contains(pid);
    watched_[pid] = std::move(ended);
    if (known) return;
    orte_proc_t* placeholder = OBJ_NEW(orte_proc_t);
    placeholder->pid = pid;
    ORTE_FLAG_SET(placeholder, ORTE_PROC_FLAG_ALIVE);
    orte_wait_cb(placeholder, reaped, orte_event_base, nullptr);  // keeps its own reference
    OBJ_RELEASE(placeholder);
}

void Children::forget(pid_t pid) {
    const auto found = watched_.find(pid);
    if (found != watched_.end()) found->second = nullptr;
}

void Children::reaped(int, short, void* data) noexcept {
    auto* tracker = static_cast<orte_wait_tracker_t*>(data);
    const pid_t pid = tracker->child->pid;
    const int status = tracker->child->exit_code;  // ORTE stores the wait status there
    OBJ_RELEASE(tracker);
    if (!present()) return;
    const auto found = present()->watched_.find(pid);
    if (found == present()->watched_.end()) return;
    const Ended ended = std::move(found->second);
    present()->watched_.erase(found);
    if (ended) ended(status);
}

}  // namespace ghost::plugin::orte41
