// SPDX-License-Identifier: BSD-3-Clause
// Several threads of each rank in MPI at once (MPI_THREAD_MULTIPLE).
#include <algorithm>
#include <memory>
#include <thread>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Bytes = std::vector<unsigned char>;

int count = 4;
std::vector<MPI_Comm> comms;  // one for each thread

void begin(const World&, const Settings& settings) {
    count = std::max(settings.threads, 2);
    if (!comms.empty()) return;
    comms.resize(static_cast<size_t>(count));
    for (MPI_Comm& comm : comms) MPI_Comm_dup(MPI_COMM_WORLD, &comm);
}
void end() {
    for (MPI_Comm& comm : comms) MPI_Comm_free(&comm);
    comms.clear();
}

template <typename Work>
void in_threads(Work work) {
    std::vector<std::thread> all;
    for (int thread = 0; thread < count; ++thread) all.emplace_back(work, thread);
    for (std::thread& thread : all) thread.join();
}

// Rings of `comm`, messages of several sizes, tags of this thread only.
void rings(Turn& turn, MPI_Comm comm, int thread, const char* where) {
    const Group g(comm, turn.salt(40));
    for (size_t bytes : {size_t{8}, size_t{600}, size_t{5000}, size_t{150000}, size_t{300000}}) {
        if (bytes > turn.max_bytes) break;
        for (int i = 0; i < 8; ++i) {
            const int tag = 100 * thread + i;
            Bytes out(bytes);
            Guarded in(bytes);
            fill(out.data(), bytes, key(g.rank, tag, g.salt + bytes));
            MPI_Request requests[2];
            MPI_Irecv(in.data(), count_of(bytes), MPI_BYTE, g.left(), tag, comm, &requests[0]);
            MPI_Isend(out.data(), count_of(bytes), MPI_BYTE, g.right(), tag, comm, &requests[1]);
            MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
            turn.expect_none(in.check(bytes, key(g.left(), tag, g.salt + bytes)), where, thread);
        }
    }
}

void one_communicator(Turn& turn) {
    in_threads([&](int thread) { rings(turn, MPI_COMM_WORLD, thread, "threads, one comm"); });
}

void each_its_own(Turn& turn) {
    in_threads([&](int thread) { rings(turn, comms[thread], thread, "threads, own comms"); });
}

// Every thread in every collective, each on its communicator.
void collectives_of_each(Turn& turn) {
    in_threads([&](int thread) {
        const Group g(comms[thread], turn.salt(41) * 16 + static_cast<uint64_t>(thread));
        one_by_one(turn, g, 200);
        all_at_once(turn, g, 300);
    });
}

// All threads send to the right with the same tag, and all take from anybody: who gets which is
// open, but every message comes whole and once.
void any_thread(Turn& turn) {
    constexpr int each = 20;
    constexpr size_t bytes = 3000;
    const Group g(MPI_COMM_WORLD, turn.salt(42));
    std::vector<std::atomic<int>> seen(static_cast<size_t>(count * each));
    in_threads([&](int thread) {
        for (int i = 0; i < each; ++i) {
            const int number = thread * each + i;
            Bytes out(bytes), in(bytes);
            fill(out.data(), bytes, key(g.rank, number, g.salt));
            std::memcpy(out.data(), &number, sizeof number);
            MPI_Sendrecv(out.data(), bytes, MPI_BYTE, g.right(), 9000, in.data(), bytes, MPI_BYTE,
                         MPI_ANY_SOURCE, 9000, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            int got = -1;
            std::memcpy(&got, in.data(), sizeof got);
            const bool known = got >= 0 && got < count * each;
            turn.expect(known, "a message of any thread", got);
            if (!known) continue;
            ++seen[got];
            fill(out.data(), bytes, key(g.left(), got, g.salt));
            std::memcpy(out.data(), &got, sizeof got);
            turn.expect(in == out, "what a thread took", got);
        }
    });
    for (int i = 0; i < count * each; ++i) turn.expect(seen[i] == 1, "taken once", i);
}

// One waits in MPI all the time, others send, receive and probe.
void waiting(Turn& turn) {
    const Group g(MPI_COMM_WORLD, turn.salt(43));
    in_threads([&](int thread) {
        if (thread == 0) {
            for (int i = 0; i < 10; ++i) MPI_Barrier(comms[0]);
            return;
        }
        const int tag = 9100 + thread;
        const size_t bytes = 2000 * static_cast<size_t>(thread);
        for (int i = 0; i < 10; ++i) {
            Bytes out(bytes);
            fill(out.data(), bytes, key(g.rank, tag + i * 100, g.salt));
            MPI_Request request;
            MPI_Isend(out.data(), count_of(bytes), MPI_BYTE, g.right(), tag, g.comm, &request);
            MPI_Message message;
            MPI_Mprobe(g.left(), tag, g.comm, &message, MPI_STATUS_IGNORE);
            Guarded in(bytes);
            MPI_Mrecv(in.data(), count_of(bytes), MPI_BYTE, &message, MPI_STATUS_IGNORE);
            MPI_Wait(&request, MPI_STATUS_IGNORE);
            turn.expect_none(in.check(bytes, key(g.left(), tag + i * 100, g.salt)), "mprobe", i);
        }
    });
}

constexpr Phase phases[] = {{"threads", "threads-one", one_communicator, begin, end},
                            {"threads", "threads-own", each_its_own, begin, end},
                            {"threads", "threads-collectives", collectives_of_each, begin, end},
                            {"threads", "threads-any", any_thread, begin, end},
                            {"threads", "threads-waiting", waiting, begin, end}};

}  // namespace

std::span<const Phase> threads() {
    return phases;
}

}  // namespace mpitest
