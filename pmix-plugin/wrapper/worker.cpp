// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/worker.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <type_traits>
#include <utility>

#include "base/log.hpp"

namespace ghost::plugin {

std::string encode(const Outgoing& message) {
    return std::visit(
        []<typename T>(const T& said) -> std::string {
            if constexpr (std::is_same_v<T, std::monostate>)
                return {};
            else
                return schema::encode(said);
        },
        message);
}

std::string not_for_this_wrapper(const schema::Received& message) {
    log::warning("the node agent sent an unknown message {}", message.name());
    return schema::encode(schema::Complaint{fmt::format("unknown message {}", message.name())});
}

Worker::Worker() : done_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Worker::~Worker() {
    if (!busy()) return;
    interrupt();
    finish();
}

void Worker::start(std::function<Outgoing()> job) {
    bytes_ = total_ = told_ = 0;
    told_steps_ = steps_;
    {
        std::lock_guard lock(mutex_);
        socket_ = -1;
        interrupted_ = false;
        said_.clear();
    }
    ended_ = false;
    thread_ = std::thread([this, job = std::move(job)] {
        answer_ = job();
        ended_ = true;
        eventfd_write(done_.get(), 1);
    });
}

Outgoing Worker::finish() {
    thread_.join();
    eventfd_t count = 0;
    eventfd_read(done_.get(), &count);
    return std::exchange(answer_, {});
}

void Worker::say(Outgoing message) {
    {
        std::lock_guard lock(mutex_);
        said_.push_back(std::move(message));
    }
    eventfd_write(done_.get(), 1);
}

std::optional<Outgoing> Worker::heard() {
    eventfd_t count = 0;
    eventfd_read(done_.get(), &count);
    std::lock_guard lock(mutex_);
    if (said_.empty()) {
        if (ended_) eventfd_write(done_.get(), 1);  // whoever waits for the end sees it
        return {};
    }
    Outgoing out = std::move(said_.front());
    said_.pop_front();
    return out;
}

void Worker::interrupt() {
    std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
}

bool Worker::progress(uint64_t& bytes, uint64_t& total) {
    bytes = bytes_;
    total = total_;
    const uint64_t steps = steps_;
    const bool more = std::exchange(told_, bytes) != bytes && bytes > 0;
    return std::exchange(told_steps_, steps) != steps || more;
}

void Worker::note(uint64_t bytes, uint64_t total) {
    total_ = total;
    bytes_ = bytes;
}

void Worker::uses(int socket) {
    std::lock_guard lock(mutex_);
    socket_ = socket;
    if (interrupted_ && socket >= 0) ::shutdown(socket, SHUT_RDWR);
}

}  // namespace ghost::plugin
