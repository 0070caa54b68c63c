// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/streams/manager_thread.hpp"

#include <csignal>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include "base/log.hpp"
#include "base/loop.hpp"

namespace ghost::plugin {

Status ManagerThread::start(const kernet::ManagerConfig& config,
                            const kernet::TcpChannelConfig& net, ControlListener processes,
                            std::vector<Fd> nodes) {
    auto manager = kernet::Manager::create(config, std::move(processes));
    if (!manager) return manager.error();
    auto channel = kernet::TcpChannel::create(net, **manager, std::move(nodes));
    if (!channel) return channel.error();
    bell_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!bell_) return sys_error("create an eventfd");
    manager_ = std::move(*manager);
    channel_ = std::move(*channel);
    manager_->set_channel(channel_.get());
    // A signal of the runtime must not be taken by this thread.
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    thread_ = std::thread([this] { work(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return {};
}

void ManagerThread::expel(int node) {
    if (!running()) return;
    {
        std::lock_guard lock(mutex_);
        expelled_.push_back(node);
    }
    const uint64_t one = 1;
    if (::write(bell_.get(), &one, sizeof one) < 0) return;  // full: readable already
}

std::vector<pid_t> ManagerThread::processes() const {
    std::lock_guard lock(mutex_);
    return processes_;
}

void ManagerThread::stop() {
    if (!running()) return;
    ending_ = true;
    const uint64_t one = 1;
    if (::write(bell_.get(), &one, sizeof one) < 0) log::debug("the bell rings already");
    thread_.join();
    manager_->set_channel(nullptr);
    channel_.reset();
    manager_.reset();
}

// The job is worth more than its streams: what goes wrong here ends only them.
void ManagerThread::work() noexcept {
    try {
        if (Status served = serve(); !served)
            log::error("the stream manager of this node has ended: {}", served.error().message());
        channel_->leave();
    } catch (const std::exception& failure) {
        log::error("the stream manager of this node has ended: {}", failure.what());
    }
    std::lock_guard lock(mutex_);
    processes_.clear();
}

Status ManagerThread::serve() {
    uint64_t known = 0;
    const auto serve = [&] {
        channel_->service();
        manager_->service();
        if (manager_->processes_changed() == known) return;
        known = manager_->processes_changed();
        auto processes = manager_->processes();
        std::lock_guard lock(mutex_);
        processes_ = std::move(processes);
    };
    Loop loop;
    const auto on_order = loop.on_readable(bell_.get(), [&] {
        take_orders();
        serve();
        if (ending_) loop.stop();
    });
    const auto on_process = loop.on_readable(manager_->fd(), serve);
    const auto on_node = loop.on_readable(channel_->fd(), serve);
    return loop.run();
}

void ManagerThread::take_orders() {
    uint64_t count = 0;
    if (::read(bell_.get(), &count, sizeof count) < 0) return;
    std::deque<int> expelled;
    {
        std::lock_guard lock(mutex_);
        expelled.swap(expelled_);
    }
    for (int node : expelled) channel_->expel(node);
}

}  // namespace ghost::plugin
