// SPDX-License-Identifier: BSD-3-Clause
// A running live_subject, watched through its file. Used by the test and by the benchmark.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <sys/mman.h>

#include "tests/process/ghost_tree.hpp"
#include "tests/process/live_subject.hpp"

namespace ghost::core::test {

class LiveTree {
  public:
    // `folder` is seen by every node the tree comes to.
    LiveTree(const std::string& folder, int megabytes, int threads, int rate) : LiveTree(folder) {
        Pipe in = make_pipe(), out = make_pipe();
        auto program = subject_program();
        program.replace(program.rfind('/') + 1, std::string::npos, "live_subject");
        const std::string size = std::to_string(megabytes), count = std::to_string(threads),
                          speed = std::to_string(rate);
        root = static_cast<pid_t>(
            syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, nullptr, nullptr, nullptr, 0L));
        if (root == 0) {
            dup2(in.out.get(), 0);
            dup2(out.in.get(), 1);
            dup2(open("/dev/null", O_RDWR), 2);
            close_range(3, ~0U, 0);
            execl(program.c_str(), program.c_str(), "init", size.c_str(), count.c_str(),
                  speed.c_str(), path_.c_str(), nullptr);
            _exit(127);
        }
        stdin_ = std::move(in.in);
        stdout_ = std::move(out.out);
        fcntl(stdout_.get(), F_SETPIPE_SZ, 1 << 20);
        fcntl(stdout_.get(), F_SETFL, O_NONBLOCK);
        child_in_ = std::move(in.out);
        child_out_ = std::move(out.in);
    }
    // One that is started elsewhere, and watched here.
    explicit LiveTree(const std::string& folder) : path_(folder + "/beats") {
        const Fd file(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        EXPECT_EQ(ftruncate(file.get(), sizeof(Beats)), 0);
        beats_ = static_cast<Beats*>(mmap(nullptr, sizeof(Beats), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_POPULATE, file.get(), 0));
    }
    ~LiveTree() {
        end();
        munmap(beats_, sizeof(Beats));
        unlink(path_.c_str());
        unlink((path_ + ".data").c_str());
    }
    LiveTree(const LiveTree&) = delete;
    LiveTree& operator=(const LiveTree&) = delete;

    bool wait_ready(int64_t limit_us = 60000000) const {
        const int64_t limit = monotonic_us() + limit_us;
        while (beats_->ready == 0 && monotonic_us() < limit) usleep(5000);
        return beats_->ready != 0 && beats();
    }
    // More than a few beats within some seconds.
    bool beats() const {
        const uint64_t before = beats_->count;
        const int64_t limit = monotonic_us() + 5000000;
        while (beats_->count < before + 20 && monotonic_us() < limit) usleep(1000);
        return beats_->count >= before + 20;
    }
    bool ask(Ask what, int64_t limit_us = 60000000) {
        beats_->ask = what;
        const int64_t limit = monotonic_us() + limit_us;
        while (beats_->ask != Ask::nothing && monotonic_us() < limit) {
            usleep(1000);
            drain();
        }
        return beats_->ask == Ask::nothing;
    }
    // Bits of what is wrong (live_subject.cpp); 0: whole. Also its lines and beats so far.
    uint64_t check() {
        beats_->answer = ~uint64_t{0};
        if (!ask(Ask::check)) return ~uint64_t{0};
        if (!lines_right()) return uint64_t{1} << 32;
        const uint64_t count = beats_->count;
        for (uint64_t i = count > 100000 ? count - 100000 : 0; i < count; i++)
            if (beats_->beats[i % beats_kept].number != i) return uint64_t{1} << 33;
        if (beats_->wrong_pages != 0)
            std::printf(
                "   %llu pages wrong, the last at %#llx: %#llx, should be %#llx; %llu words "
                "torn, %#llx done\n",
                static_cast<unsigned long long>(beats_->wrong_pages),
                static_cast<unsigned long long>(beats_->wrong_at),
                static_cast<unsigned long long>(beats_->wrong_found),
                static_cast<unsigned long long>(beats_->wrong_wanted),
                static_cast<unsigned long long>(beats_->wrong_words),
                static_cast<unsigned long long>(beats_->wrong_done));
        return beats_->answer;
    }
    // The longest time between two beats since beat `from`, ms; and which.
    std::pair<double, uint64_t> longest_gap(uint64_t from) const {
        std::pair<double, uint64_t> out{0, from};
        for (uint64_t i = from + 1; i < beats_->count; i++) {
            const double gap = static_cast<double>(beats_->beats[i % beats_kept].ns -
                                                   beats_->beats[(i - 1) % beats_kept].ns) /
                               1e6;
            if (gap > out.first) out = {gap, i};
        }
        return out;
    }
    uint64_t count() const { return beats_->count; }
    // Until it has written so many pages more; says whether it has within 20 s.
    bool writes(uint64_t pages) const {
        const uint64_t enough = beats_->written + pages;
        const int64_t limit = monotonic_us() + 20'000'000;
        while (beats_->written < enough && monotonic_us() < limit) usleep(1000);
        return beats_->written >= enough;
    }
    // All times between two beats of more than `least` ms, of the beats [from, to): when, after
    // the first one, and how long, ms.
    std::vector<std::pair<double, double>> gaps(uint64_t from, uint64_t to, double least) const {
        std::vector<std::pair<double, double>> out;
        const uint64_t begin = beats_->beats[from % beats_kept].ns;
        for (uint64_t i = from + 1; i < to; i++) {
            const uint64_t last = beats_->beats[(i - 1) % beats_kept].ns;
            const double gap = static_cast<double>(beats_->beats[i % beats_kept].ns - last) / 1e6;
            if (gap > least) out.emplace_back(static_cast<double>(last - begin) / 1e6, gap);
        }
        return out;
    }

    std::vector<std::string> keys() const {
        return {pipe_key(child_in_.get()), pipe_key(child_out_.get())};
    }
    // The tree's ends of its pipes, which outlive it.
    std::vector<InheritFd> inherit() const {
        return {{child_in_.get(), pipe_key(child_in_.get())},
                {child_out_.get(), pipe_key(child_out_.get())}};
    }
    void end() { end_tree(root); }

    pid_t root = 0;

  private:
    void drain() {
        char some[65536];
        for (ssize_t got; (got = read(stdout_.get(), some, sizeof some)) > 0;)
            text_.append(some, static_cast<size_t>(got));
    }
    // "t N" with growing N, nothing twice, nothing lost in between
    bool lines_right() {
        drain();
        const auto end = text_.rfind('\n');
        for (size_t at = 0; end != std::string::npos && at <= end;) {
            const auto stop = text_.find('\n', at);
            const auto number = std::strtoull(text_.c_str() + at + 2, nullptr, 10);
            if (text_.compare(at, 2, "t ") != 0 || number <= line_) return false;
            line_ = number;
            at = stop + 1;
        }
        if (end != std::string::npos) text_.erase(0, end + 1);
        return true;
    }

    std::string path_, text_;
    Beats* beats_ = nullptr;
    Fd stdin_, stdout_, child_in_, child_out_;
    uint64_t line_ = 0;
};

}  // namespace ghost::core::test
