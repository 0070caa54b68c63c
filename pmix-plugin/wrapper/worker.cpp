#include "pmix-plugin/wrapper/worker.hpp"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

namespace ghost::plugin {

Worker::Worker() : done_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Worker::~Worker() {
    if (!busy()) return;
    interrupt();
    finish();
}

void Worker::start(std::function<Json()> job) {
    bytes_ = total_ = told_ = 0;
    {
        std::lock_guard lock(mutex_);
        socket_ = -1;
        interrupted_ = false;
    }
    thread_ = std::thread([this, job = std::move(job)] {
        answer_ = job();
        uint64_t one = 1;
        if (::write(done_.get(), &one, sizeof one) < 0) return;
    });
}

Json Worker::finish() {
    thread_.join();
    uint64_t count = 0;
    if (::read(done_.get(), &count, sizeof count) < 0) return std::exchange(answer_, Json());
    return std::exchange(answer_, Json());
}

void Worker::interrupt() {
    std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
}

bool Worker::progress(uint64_t& bytes, uint64_t& total) {
    bytes = bytes_;
    total = total_;
    return std::exchange(told_, bytes) != bytes;
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
