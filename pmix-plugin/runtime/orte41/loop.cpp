// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/loop.hpp"

#include <charconv>
#include <cstring>
#include <dirent.h>
#include <memory>

#include "base/log.hpp"
#include "base/scheduling.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

struct Loop::Entry {
    Entry(Loop& owner, uint64_t number, std::function<void()> what)
        : loop(owner), id(number), action(std::move(what)), event(opal_event_alloc()) {}
    ~Entry() { opal_event_free(event); }  // takes it off the base first
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

    Loop& loop;
    uint64_t id;
    std::function<void()> action;
    opal_event_t* event;
    bool once = false;
};

namespace {

// Nothing may be thrown into libevent.
void call(const std::function<void()>& action) noexcept {
    try {
        action();
    } catch (const std::exception& failure) {
        log::error("event handler failed: {}", failure.what());
    }
}

}  // namespace

Loop::Loop() = default;
Loop::~Loop() {
    clear();
}

void Loop::fired(int, short, void* data) noexcept {
    auto* raw = static_cast<Entry*>(data);
    const auto found = raw->loop.entries_.find(raw->id);
    if (found == raw->loop.entries_.end()) return;
    const std::shared_ptr<Entry> entry = found->second;  // the action may remove it
    if (entry->once) entry->loop.entries_.erase(found);
    call(entry->action);
}

uint64_t Loop::add(int fd, std::function<void()> action) {
    const uint64_t id = ++last_;
    auto entry = std::make_shared<Entry>(*this, id, std::move(action));
    opal_event_set(orte_event_base, entry->event, fd, fd < 0 ? 0 : OPAL_EV_READ | OPAL_EV_PERSIST,
                   fired, entry.get());
    entries_.emplace(id, std::move(entry));
    return id;
}

TimerId Loop::after(int64_t us, std::function<void()> action) {
    const uint64_t id = add(-1, std::move(action));
    Entry& entry = *entries_.at(id);
    entry.once = true;
    timeval delay{};
    delay.tv_sec = us > 0 ? us / 1000000 : 0;
    delay.tv_usec = us > 0 ? us % 1000000 : 0;
    opal_event_add(entry.event, &delay);
    return id;
}

void Loop::cancel(TimerId timer) {
    entries_.erase(timer);
}

WatchId Loop::watch(int fd, std::function<void()> readable) {
    const uint64_t id = add(fd, std::move(readable));
    opal_event_add(entries_.at(id)->event, nullptr);
    return id;
}

void Loop::unwatch(WatchId watch) {
    entries_.erase(watch);
}

void Loop::clear() {
    entries_.clear();
}

namespace {

struct Posted {
    opal_event_t* event;
    std::function<void()> action;
};

void run_posted(int, short, void* data) noexcept {
    const std::unique_ptr<Posted> posted(static_cast<Posted*>(data));
    opal_event_free(posted->event);
    call(posted->action);
}

}  // namespace

void post_to_orte(std::function<void()> action) {
    auto* posted = new Posted{opal_event_alloc(), std::move(action)};
    opal_event_set(orte_event_base, posted->event, -1, OPAL_EV_WRITE, run_posted, posted);
    opal_event_active(posted->event, OPAL_EV_WRITE, 1);
}

DaemonPriority::~DaemonPriority() {
    restore();
}

void DaemonPriority::begin() {
    if (depth_++ > 0) return;
    std::unique_ptr<DIR, int (*)(DIR*)> list(::opendir("/proc/self/task"), ::closedir);
    const sched_param lowest = lowest_of(SCHED_RR);
    while (const dirent* entry = list ? ::readdir(list.get()) : nullptr) {
        Before before{0, 0, {}};
        const char* end = entry->d_name + std::strlen(entry->d_name);
        if (std::from_chars(entry->d_name, end, before.thread).ptr != end) continue;
        before.policy = sched_getscheduler(before.thread);
        if (before.policy < 0 || sched_getparam(before.thread, &before.param) != 0) continue;
        if (sched_setscheduler(before.thread, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0)
            before_.push_back(before);
    }
}

void DaemonPriority::end() {
    if (depth_ > 0 && --depth_ == 0) restore();
}

void DaemonPriority::restore() {
    for (const Before& before : before_)
        sched_setscheduler(before.thread, before.policy, &before.param);
    before_.clear();
}

}  // namespace ghost::plugin::orte41
