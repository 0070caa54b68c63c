// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/events/writer.hpp"

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "pmix-plugin/events/files.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 10'000;  // lines
constexpr size_t jobs_kept = 50;
constexpr std::chrono::seconds end_limit(1);

}  // namespace

// Where lines go. Of the thread that writes.
struct EventWriter::Places {
    std::string path;
    Fd file;
    bool torn = false;  // the last line has no end
    std::function<std::string(const std::string&)> append;
    bool said = false, said_of_append = false;

    void complain(bool& said_it, const std::string& why) {
        if (!std::exchange(said_it, true))
            log::warning("the job's event log is not complete: {}; the job is unharmed", why);
    }
    void open() {
        auto opened = open_events_file(path);
        if (!opened.ok()) return complain(said, opened.error().message());
        file = std::move(*opened);
        torn = false;
    }
    void write(const std::string& line) {
        if (append)
            if (const std::string why = append(line); !why.empty()) complain(said_of_append, why);
        if (!file) return;
        const std::string text = torn ? "\n" + line : line;
        const ssize_t n = ::write(file.get(), text.data(), text.size());
        if (n == static_cast<ssize_t>(text.size())) {
            torn = false;
            return;
        }
        torn = torn || n > 0;
        complain(said, sys_error_of(n < 0 ? errno : ENOSPC, "write", path).message());
    }
    void rotate() {
        if (!file) return;
        if (::rename(path.c_str(), older_part(path).c_str()) != 0)
            return complain(said, sys_error("rename", path).message());
        open();
    }
};

struct EventWriter::Thread {
    Places places;
    std::mutex mutex;  // of what follows
    std::condition_variable more, over;
    std::deque<std::function<void(Places&)>> tasks;
    bool begun = false, ending = false, ended = false;
    size_t dropped = 0;

    void work() {
        std::unique_lock lock(mutex);
        for (;;) {
            more.wait(lock, [this] { return ending || !tasks.empty(); });
            if (tasks.empty()) break;
            const auto task = std::move(tasks.front());
            tasks.pop_front();
            lock.unlock();
            task(places);
            lock.lock();
        }
        ended = true;
        over.notify_all();
    }
};

EventWriter::EventWriter(bool threaded)
    : thread_(std::make_shared<Thread>()), threaded_(threaded) {}

void EventWriter::add(std::function<void(Places&)> task) {
    if (stopped_) return;
    if (!threaded_) return task(thread_->places);
    std::unique_lock lock(thread_->mutex);
    if (thread_->tasks.size() >= most_waiting) {
        ++thread_->dropped;
        return;
    }
    thread_->tasks.push_back(std::move(task));
    thread_->more.notify_one();
    if (std::exchange(thread_->begun, true)) return;
    // A signal of the runtime must not be taken by this thread.
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    std::thread([shared = thread_] { shared->work(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void EventWriter::open(const std::string& path) {
    add([path](Places& places) {
        places.path = path;
        places.open();
        remove_old_events(path.substr(0, path.rfind('/')), jobs_kept);
    });
}

void EventWriter::also(std::function<std::string(const std::string&)> append) {
    add([append = std::move(append)](Places& places) { places.append = append; });
}

void EventWriter::write(std::string line) {
    add([line = std::move(line)](Places& places) { places.write(line); });
}

void EventWriter::rotate() {
    add([](Places& places) { places.rotate(); });
}

void EventWriter::stop() {
    if (std::exchange(stopped_, true)) return;
    std::unique_lock lock(thread_->mutex);
    if (thread_->dropped > 0)
        log::warning("the job's event log lacks {} lines: they could not be written in time",
                     thread_->dropped);
    if (!thread_->begun) return;
    thread_->ending = true;
    thread_->more.notify_one();
    // One that hangs goes with the process.
    thread_->over.wait_for(lock, end_limit, [this] { return thread_->ended; });
}

}  // namespace ghost::plugin
