// SPDX-License-Identifier: BSD-3-Clause
// Threads that have been told where and how to run, and look at every round whether they still do:
//   placed [--seconds N | --stop-file FILE] [--say]
// The last rank has one bound to each of two processors, one with a nice value, one in the class
// SCHED_BATCH, one with an io priority, one with a timer slack. --say: nothing is expected; each
// round says which processors the main threads of all ranks have, as bits.
#include "tests/mpi/common.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <vector>

namespace {

constexpr int one_process = 1;              // IOPRIO_WHO_PROCESS
constexpr int best_effort_6 = 2 << 13 | 6;  // IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6)

std::string seen() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    sched_getaffinity(0, sizeof mask, &mask);
    std::string out = "processors";
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask)) out += " " + std::to_string(cpu);
    out += " class " + std::to_string(sched_getscheduler(0));
    out += " nice " + std::to_string(getpriority(PRIO_PROCESS, 0));
    out += " io " + std::to_string(syscall(SYS_ioprio_get, one_process, 0));
    out += " slack " + std::to_string(prctl(PR_GET_TIMERSLACK));
    return out;
}

bool bind_to(size_t cpu) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    return sched_setaffinity(0, sizeof mask, &mask) == 0;
}

uint64_t processors() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    sched_getaffinity(0, sizeof mask, &mask);
    uint64_t out = 0;
    for (size_t cpu = 0; cpu < 64; cpu++)
        if (CPU_ISSET(cpu, &mask)) out |= uint64_t{1} << cpu;
    return out;
}

// Those of all ranks, at rank 0.
std::string said_by_all(const mpitest::World& world) {
    const uint64_t own = processors();
    std::vector<uint64_t> all(static_cast<size_t>(world.size));
    MPI_Gather(&own, 1, MPI_UINT64_T, all.data(), 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    std::string out;
    for (const uint64_t one : all) out += " " + std::to_string(one);
    return out;
}

bool batch() {
    const sched_param none{};
    return sched_setscheduler(0, SCHED_BATCH, &none) == 0;
}

// A thread that is placed by `begin` and says for each round whether it still is.
class Placed {
  public:
    explicit Placed(std::function<bool()> begin)
        : thread_([this, begin = std::move(begin)] { look(begin); }) {}
    ~Placed() {
        ended_ = true;
        ask();
        thread_.join();
    }
    Placed(const Placed&) = delete;
    Placed& operator=(const Placed&) = delete;
    uint64_t errors() {
        ask();
        while (answered_ != asked_) answered_.wait(answered_);
        return errors_;
    }

  private:
    void ask() {
        asked_++;
        asked_.notify_all();
    }
    void look(const std::function<bool()>& begin) {
        if (!begin()) errors_++;
        const auto before = seen();
        for (uint32_t done = 0; !ended_; answered_ = ++done, answered_.notify_all()) {
            asked_.wait(done);
            const auto now = seen();
            if (now == before) continue;
            if (errors_++ == 0)
                std::fprintf(stderr, "it is %s, it was %s\n", now.c_str(), before.c_str());
        }
    }

    std::atomic<uint32_t> asked_{0}, answered_{0};
    std::atomic<bool> ended_{false};
    std::atomic<uint64_t> errors_{0};
    std::thread thread_;
};

std::vector<std::unique_ptr<Placed>> make() {
    const std::function<bool()> ways[] = {
        [] { return true; },
        [] { return bind_to(0); },
        [] { return bind_to(1); },
        [] { return setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 4) == 0; },
        batch,
        [] { return syscall(SYS_ioprio_set, one_process, 0, best_effort_6) == 0; },
        [] { return prctl(PR_SET_TIMERSLACK, 123456UL) == 0; },
    };
    std::vector<std::unique_ptr<Placed>> out;
    for (const auto& way : ways) out.push_back(std::make_unique<Placed>(way));
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    std::vector<std::unique_ptr<Placed>> threads;
    const bool says = options.flag("--say");
    if (world.rank == world.size - 1 && !says) threads = make();
    const auto before = seen();
    mpitest::Limit limit(options, 3);
    uint64_t errors = 0;
    uint32_t number = 0;
    while (world.agree(!limit.reached(number))) {
        uint64_t wrong = says || seen() == before ? 0 : 1;
        for (const auto& thread : threads) wrong += thread->errors();
        errors += world.sum(wrong);
        const auto said = says ? said_by_all(world) : "";
        if (world.rank == 0 && says) std::printf("processors:%s.\n", said.c_str());
        if (world.rank == 0) {
            std::printf("round %u: %llu errors\n", number, static_cast<unsigned long long>(errors));
            std::fflush(stdout);
        }
        usleep(10000);
        ++number;
    }
    threads.clear();
    world.say_end("placed", number, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
