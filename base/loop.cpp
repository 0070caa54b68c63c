// SPDX-License-Identifier: BSD-3-Clause
#include "base/loop.hpp"

#include <event2/event.h>
#include <new>

#include "base/fd.hpp"
#include "base/pidfd.hpp"

namespace ghost {

struct Loop::Watched {
    std::vector<std::shared_ptr<Watched>>* all = nullptr;
    ::event* event = nullptr;  // null: the watch has ended
    bool due = false;
    Callback call;
    Fd child;  // of on_end()
};

Loop::Watch& Loop::Watch::operator=(Watch&& other) noexcept {
    if (this == &other) return *this;
    reset();
    watched_ = std::move(other.watched_);
    return *this;
}

// What is running now may be its callback: the round still has it.
void Loop::Watch::reset() {
    if (!watched_) return;
    event_free(std::exchange(watched_->event, nullptr));
    std::erase(*watched_->all, watched_);
    watched_.reset();
}

void Loop::Free::operator()(event_base* base) const {
    event_base_free(base);
}

// Fails for want of memory only.
Loop::Loop() {
    event_config* config = event_config_new();
    if (config == nullptr) throw std::bad_alloc();
    event_config_require_features(config, EV_FEATURE_FDS);  // not epoll(7), which refuses files
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);  // not up to 4 ms late
    base_.reset(event_base_new_with_config(config));
    event_config_free(config);
    if (!base_) throw std::bad_alloc();
}

Loop::~Loop() = default;

Loop::Watch Loop::watch(int fd, short what, int64_t us, Callback call) {
    auto watched = std::make_shared<Watched>();
    watched->all = &watched_;
    watched->call = std::move(call);
    watched->event = event_new(
        base_.get(), fd, what,
        [](int, short, void* one) { static_cast<Watched*>(one)->due = true; }, watched.get());
    if (watched->event == nullptr) throw std::bad_alloc();
    watched_.push_back(watched);
    Watch out(std::move(watched));
    const timeval time{us / 1'000'000, us % 1'000'000};
    if (event_add(watched_.back()->event, us < 0 ? nullptr : &time) != 0) throw std::bad_alloc();
    return out;
}

Loop::Watch Loop::on_readable(int fd, Callback call) {
    return fd < 0 ? Watch() : watch(fd, EV_READ | EV_PERSIST, -1, std::move(call));
}

Loop::Watch Loop::on_writable(int fd, Callback call) {
    return fd < 0 ? Watch() : watch(fd, EV_WRITE | EV_PERSIST, -1, std::move(call));
}

Loop::Watch Loop::after(int64_t us, Callback call) {
    return watch(-1, 0, us, std::move(call));
}

Loop::Watch Loop::every(int64_t us, Callback call) {
    return watch(-1, EV_PERSIST, us, std::move(call));
}

Loop::Watch Loop::on_end(pid_t child, Callback call) {
    Fd fd = open_pidfd(child);
    Watch out = on_readable(fd.get(), std::move(call));
    if (out) watched_.back()->child = std::move(fd);
    return out;
}

Status Loop::run() {
    for (stopped_ = false; !stopped_;) GHOST_TRY(round());
    return {};
}

Status Loop::round(bool wait) {
    const int done = event_base_loop(base_.get(), wait ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
    if (done < 0) return sys_error("wait for descriptors");
    if (done > 0 && wait) return make_error(Code::internal, "wait for nothing");
    due_.clear();  // of a round that ended by an exception
    for (const auto& one : watched_) {
        if (std::exchange(one->due, false)) due_.push_back(one);
    }
    for (const auto& one : due_) {
        if (one->event != nullptr) one->call();
    }
    due_.clear();
    return {};
}

}  // namespace ghost
