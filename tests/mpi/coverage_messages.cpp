// SPDX-License-Identifier: BSD-3-Clause
// Messages between two ranks: the patterns of the usual benchmarks, every mode of sending, and
// receives that look before they take.
#include <algorithm>
#include <array>
#include <memory>

#include "tests/mpi/coverage.hpp"

namespace mpitest {
namespace {

using Bytes = std::vector<unsigned char>;

std::vector<size_t> sizes(const Turn& turn) {
    std::vector<size_t> out;
    for (size_t size : {size_t{0}, size_t{1}, size_t{64}, size_t{257}, size_t{4097}, size_t{70000},
                        size_t{131500}, size_t{400001}, size_t{1} << 20, size_t{4} << 20}) {
        if (size <= turn.max_bytes) out.push_back(size);
    }
    return out;
}

Bytes message(const Turn& turn, int source, int tag, size_t bytes) {
    Bytes out(bytes + 1);
    fill(out.data(), bytes, key(source, tag, turn.salt(0)));
    return out;
}

void check(Turn& turn, const Guarded& in, int source, int tag, const char* where) {
    turn.expect_none(in.check(in.size(), key(source, tag, turn.salt(0))), where,
                     static_cast<int64_t>(in.size()));
}

// All pairs, in an order in which nobody waits in a circle: partners by exclusive or.
template <typename Work>
void with_every_partner(const Turn& turn, Work work) {
    for (int mask = 1; mask < 2 * turn.world.size; mask *= 2) {
        const int peer = turn.world.rank ^ mask;
        if (peer < turn.world.size) work(peer);
    }
}

void ping_pong_with(Turn& turn, int peer, size_t bytes, int tag) {
    const bool first = turn.world.rank < peer;
    const int low = std::min(turn.world.rank, peer);
    Guarded in(bytes);
    for (int i = 0; i < 3; ++i, ++tag) {
        // The same message there and back: the second half sends what it got.
        if (first) {
            const Bytes out = message(turn, low, tag, bytes);
            MPI_Send(out.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD);
        }
        in.reset();
        MPI_Recv(in.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        check(turn, in, low, tag, "pingpong");
        if (!first) MPI_Send(in.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD);
    }
}

void ping_pong(Turn& turn) {
    int tag = 100;
    for (size_t bytes : sizes(turn)) {
        with_every_partner(turn, [&](int peer) { ping_pong_with(turn, peer, bytes, tag); });
        tag += 3;
    }
}

// A ring: everybody sends to the right and receives from the left at once.
void send_receive(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    int tag = 200;
    for (size_t bytes : sizes(turn)) {
        for (int i = 0; i < 3; ++i, ++tag) {
            const Bytes out = message(turn, all.rank, tag, bytes);
            Guarded in(bytes);
            MPI_Status status;
            int got = -1;
            MPI_Sendrecv(out.data(), count_of(bytes), MPI_BYTE, all.right(), tag, in.data(),
                         count_of(bytes), MPI_BYTE, all.left(), tag, MPI_COMM_WORLD, &status);
            MPI_Get_count(&status, MPI_BYTE, &got);
            check(turn, in, all.left(), tag, "sendrecv");
            turn.expect(got == count_of(bytes) && status.MPI_SOURCE == all.left(),
                        "sendrecv's status", got);
            std::memcpy(in.data(), out.data(), bytes);
            MPI_Sendrecv_replace(in.data(), count_of(bytes), MPI_BYTE, all.left(), tag, all.right(),
                                 tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            check(turn, in, all.right(), tag, "sendrecv_replace");
        }
    }
}

// With both neighbours, both ways, at once.
void exchange(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    int tag = 300;
    for (size_t bytes : sizes(turn)) {
        for (int i = 0; i < 2; ++i, tag += 2) {
            const Bytes rightwards = message(turn, all.rank, tag, bytes);
            const Bytes leftwards = message(turn, all.rank, tag + 1, bytes);
            Guarded from_left(bytes), from_right(bytes);
            std::array<MPI_Request, 4> requests;
            MPI_Irecv(from_left.data(), count_of(bytes), MPI_BYTE, all.left(), tag, MPI_COMM_WORLD,
                      &requests[0]);
            MPI_Irecv(from_right.data(), count_of(bytes), MPI_BYTE, all.right(), tag + 1,
                      MPI_COMM_WORLD, &requests[1]);
            MPI_Isend(rightwards.data(), count_of(bytes), MPI_BYTE, all.right(), tag,
                      MPI_COMM_WORLD, &requests[2]);
            MPI_Isend(leftwards.data(), count_of(bytes), MPI_BYTE, all.left(), tag + 1,
                      MPI_COMM_WORLD, &requests[3]);
            MPI_Waitall(4, requests.data(), MPI_STATUSES_IGNORE);
            check(turn, from_left, all.left(), tag, "exchange, from the left");
            check(turn, from_right, all.right(), tag + 1, "exchange, from the right");
        }
    }
}

// Many in one direction before an answer; the receiver posts late.
void one_way(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    constexpr int many = 64;
    const size_t bytes = turn.number % 3 == 0 ? 3000 : turn.number % 3 == 1 ? 17 : 66000;
    std::vector<Bytes> out;
    std::vector<MPI_Request> requests(many);
    for (int i = 0; i < many; ++i) {
        out.push_back(message(turn, all.rank, 400 + i, bytes));
        MPI_Isend(out.back().data(), count_of(bytes), MPI_BYTE, all.right(), 400, MPI_COMM_WORLD,
                  &requests[i]);
    }
    for (int i = 0; i < many; ++i) {
        Guarded in(bytes);
        MPI_Recv(in.data(), count_of(bytes), MPI_BYTE, all.left(), 400, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        check(turn, in, all.left(), 400 + i, "one way, in order");
    }
    MPI_Waitall(many, requests.data(), MPI_STATUSES_IGNORE);
}

// Buffered, synchronous, ready; blocking and not; persistent ones of each.
void modes(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    const size_t bytes = turn.number % 2 == 0 ? 900 : std::min<size_t>(turn.max_bytes, 200000);
    constexpr int kinds = 7;
    Bytes room(4 * (bytes + MPI_BSEND_OVERHEAD));
    MPI_Buffer_attach(room.data(), count_of(room.size()));
    std::vector<Bytes> out;
    std::vector<std::unique_ptr<Guarded>> in;
    std::array<MPI_Request, kinds> receives;
    for (int i = 0; i < kinds; ++i) {
        out.push_back(message(turn, all.rank, 500 + i, bytes));
        in.push_back(std::make_unique<Guarded>(bytes));
        MPI_Irecv(in[i]->data(), count_of(bytes), MPI_BYTE, all.left(), 500 + i, MPI_COMM_WORLD,
                  &receives[i]);
    }
    MPI_Barrier(MPI_COMM_WORLD);  // ready mode is allowed from here on
    std::array<MPI_Request, kinds> sends;
    sends.fill(MPI_REQUEST_NULL);
    const int n = count_of(bytes), to = all.right();
    MPI_Bsend(out[0].data(), n, MPI_BYTE, to, 500, MPI_COMM_WORLD);
    MPI_Ibsend(out[1].data(), n, MPI_BYTE, to, 501, MPI_COMM_WORLD, &sends[1]);
    MPI_Issend(out[2].data(), n, MPI_BYTE, to, 502, MPI_COMM_WORLD, &sends[2]);
    MPI_Rsend(out[3].data(), n, MPI_BYTE, to, 503, MPI_COMM_WORLD);
    MPI_Irsend(out[4].data(), n, MPI_BYTE, to, 504, MPI_COMM_WORLD, &sends[4]);
    MPI_Ssend_init(out[5].data(), n, MPI_BYTE, to, 505, MPI_COMM_WORLD, &sends[5]);
    MPI_Bsend_init(out[6].data(), n, MPI_BYTE, to, 506, MPI_COMM_WORLD, &sends[6]);
    MPI_Startall(2, &sends[5]);
    MPI_Waitall(kinds, sends.data(), MPI_STATUSES_IGNORE);
    MPI_Request_free(&sends[5]);
    MPI_Request_free(&sends[6]);
    MPI_Waitall(kinds, receives.data(), MPI_STATUSES_IGNORE);
    for (int i = 0; i < kinds; ++i) check(turn, *in[i], all.left(), 500 + i, "send modes");
    void* given = nullptr;
    int size = 0;
    MPI_Buffer_detach(&given, &size);
}

// Persistent requests that live from the first round to the last, over every move.
struct Persistent {
    static constexpr size_t bytes = 150000;
    Bytes out = Bytes(bytes);
    Guarded in{bytes};
    std::array<MPI_Request, 2> requests{};
};
std::unique_ptr<Persistent> persistent;

void persistent_begin(const World& world, const Settings&) {
    persistent = std::make_unique<Persistent>();
    const int n = world.size;
    MPI_Recv_init(persistent->in.data(), Persistent::bytes, MPI_BYTE, (world.rank + n - 1) % n, 600,
                  MPI_COMM_WORLD, &persistent->requests[0]);
    MPI_Send_init(persistent->out.data(), Persistent::bytes, MPI_BYTE, (world.rank + 1) % n, 600,
                  MPI_COMM_WORLD, &persistent->requests[1]);
}

void persistent_run(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    for (int i = 0; i < 4; ++i) {
        persistent->in.reset();
        fill(persistent->out.data(), Persistent::bytes, key(all.rank, 600 + i, turn.salt(0)));
        MPI_Startall(2, persistent->requests.data());
        MPI_Waitall(2, persistent->requests.data(), MPI_STATUSES_IGNORE);
        check(turn, persistent->in, all.left(), 600 + i, "persistent");
    }
}

void persistent_end() {
    for (MPI_Request& request : persistent->requests) MPI_Request_free(&request);
    persistent.reset();
}

// Takes whatever is there, by matched probes: no other receive can come between.
void take_matched(Turn& turn, MPI_Comm comm, int expected, int first_tag) {
    for (int left = expected; left > 0; --left) {
        MPI_Message found = MPI_MESSAGE_NULL;
        MPI_Status status;
        int there = 0, bytes = 0;
        while (there == 0) MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &there, &found, &status);
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        Guarded in(static_cast<size_t>(bytes));
        MPI_Mrecv(in.data(), bytes, MPI_BYTE, &found, MPI_STATUS_IGNORE);
        turn.expect(status.MPI_TAG >= first_tag, "matched probe's tag", status.MPI_TAG);
        check(turn, in, status.MPI_SOURCE, status.MPI_TAG, "matched probe");
    }
}

void matching(Turn& turn) {
    MPI_Comm comm;  // of its own: nothing else may match its wildcards
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    const Group all(comm, turn.salt(0));
    constexpr int each = 6;
    const int root = static_cast<int>(turn.number % static_cast<uint64_t>(all.size));
    if (all.rank == root) {
        take_matched(turn, comm, each * (all.size - 1), 700);
    } else {
        for (int i = 0; i < each; ++i) {
            const size_t bytes = i < 4 ? 100 * static_cast<size_t>(i) : turn.max_bytes / 3;
            const Bytes out = message(turn, all.rank, 700 + i, bytes);
            MPI_Send(out.data(), count_of(bytes), MPI_BYTE, root, 700 + i, comm);
        }
    }
    MPI_Comm_free(&comm);
}

// Receives that are withdrawn, and others in the same place afterwards.
void cancelled(Turn& turn) {
    const Group all(MPI_COMM_WORLD, turn.salt(0));
    Guarded never(1000);
    MPI_Request request;
    MPI_Irecv(never.data(), 1000, MPI_BYTE, all.left(), 800, MPI_COMM_WORLD, &request);
    MPI_Cancel(&request);
    MPI_Status status;
    int gone = 0;
    MPI_Wait(&request, &status);
    MPI_Test_cancelled(&status, &gone);
    turn.expect(gone != 0, "cancel", 0);
    MPI_Barrier(MPI_COMM_WORLD);
    const Bytes out = message(turn, all.rank, 800, 1000);
    Guarded in(1000);
    MPI_Sendrecv(out.data(), 1000, MPI_BYTE, all.right(), 800, in.data(), 1000, MPI_BYTE,
                 all.left(), 800, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    check(turn, in, all.left(), 800, "after a cancelled receive");
    turn.expect_none(never.check(0, 0), "a cancelled receive's buffer", 0);
}

constexpr Phase phases[] = {
    {"messages", "pingpong", ping_pong},
    {"messages", "sendrecv", send_receive},
    {"messages", "exchange", exchange},
    {"messages", "oneway", one_way},
    {"messages", "modes", modes},
    {"messages", "matching", matching},
    {"messages", "cancelled", cancelled},
    {"messages", "persistent", persistent_run, persistent_begin, persistent_end},
};

}  // namespace

std::span<const Phase> messages() {
    return phases;
}

}  // namespace mpitest
