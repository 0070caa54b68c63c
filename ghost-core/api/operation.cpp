// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/api/operation.hpp"

#include <cerrno>
#include <system_error>

#include "ghost-core/api/objects.hpp"

using namespace ghost::core;

namespace ghost::api {

// A futex(2) and nothing else: what a signal handler may do.
void Cancellation::cancel() noexcept {
    const int before = errno;
    change(State::cancelled);
    errno = before;
}

bool Cancellation::change(State to) noexcept {
    State from = State::under_way;
    if (!state_.compare_exchange_strong(from, to)) return false;
    state_.notify_all();
    return true;
}

void Cancellation::become(State to) noexcept {
    state_ = to;
    state_.notify_all();
}

bool Cancellation::wait() const {
    state_.wait(State::under_way);
    return is_cancelled();
}

Operation::Operation(ghost_object& g, std::string tried) : g_(g), tried_(std::move(tried)) {
    g_.cancellation.begin();
    try {
        watcher_ = std::thread([this] { watch(); });
    } catch (const std::system_error&) {
        // Without it a cancel is noticed at the next read or write.
    } catch (...) {
        g_.cancellation.end();
        throw;
    }
}

void Operation::watch() {
    if (!g_.cancellation.wait()) return;
    const std::lock_guard lock(mutex_);
    if (interrupt_) interrupt_();
}

Operation::~Operation() {
    interrupted_by({});
    g_.cancellation.end();
    if (watcher_.joinable()) watcher_.join();
}

void Operation::interrupted_by(std::function<void()> interrupt) {
    const std::lock_guard lock(mutex_);
    interrupt_ = std::move(interrupt);
    if (interrupt_ && g_.cancellation.is_cancelled()) interrupt_();
}

Error Operation::cancelled() const {
    return sys_error_of(ECANCELED, tried_, "", Code::refused);
}

Status Operation::go_on() const {
    return g_.cancellation.is_cancelled() ? cancelled() : Status();
}

Status Operation::commit() {
    if (g_.cancellation.commit()) return {};
    return cancelled();
}

Error Operation::failed(const Error& why) const {
    return g_.cancellation.is_cancelled() ? cancelled() : why;
}

Progress Operation::progress() {
    if (g_.progress == nullptr) return {};
    return [&g = g_](uint64_t done, uint64_t total) {
        try {
            if (g.progress(g.progress_argument, done, total) != 0) g.cancellation.cancel();
        } catch (...) {
            g.cancellation.cancel();
        }
    };
}

Stoppable Operation::until_cancelled(Resource& inner) const {
    return {inner, [this] { return go_on(); }};
}

}  // namespace ghost::api
