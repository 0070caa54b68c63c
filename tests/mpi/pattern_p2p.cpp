// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <map>
#include <memory>

#include "tests/mpi/pattern.hpp"

namespace mpitest {

std::vector<size_t> sizes_up_to(size_t limit) {
    constexpr size_t all[] = {0,    1,     7,     64,    255,    1000,    4095,    4096,
                              4097, 16384, 65536, 65543, 262144, 1000003, 2097152, 8388608};
    std::vector<size_t> out;
    for (size_t size : all) {
        if (size <= limit) out.push_back(size);
    }
    return out;
}

namespace {

int count_of(size_t bytes) {
    return static_cast<int>(bytes);
}

size_t pair_up(const Round& r, int peer, size_t bytes, int tag) {
    const int me = r.world.rank;
    std::vector<unsigned char> out(bytes + 1);
    Guarded in(bytes);
    fill(out.data(), bytes, key(me, tag, r.salt(0)));
    auto send = tag % 2 == 0 ? MPI_Send : MPI_Ssend;
    if (me < peer) {
        send(out.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD);
        MPI_Recv(in.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    } else {
        MPI_Recv(in.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        send(out.data(), count_of(bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD);
    }
    return in.check(bytes, key(peer, tag, r.salt(0)));
}

size_t shift_by(const Round& r, int distance, size_t bytes, int tag) {
    const int n = r.world.size;
    const int to = (r.world.rank + distance) % n;
    const int from = (r.world.rank + n - distance) % n;
    std::vector<unsigned char> out(bytes + 1);
    Guarded in(bytes);
    fill(out.data(), bytes, key(r.world.rank, tag, r.salt(1)));
    MPI_Status status;
    MPI_Sendrecv(out.data(), count_of(bytes), MPI_BYTE, to, tag, in.data(), count_of(bytes),
                 MPI_BYTE, from, tag, MPI_COMM_WORLD, &status);
    int got = 0;
    MPI_Get_count(&status, MPI_BYTE, &got);
    return in.check(bytes, key(from, tag, r.salt(1))) + (got != count_of(bytes) ? 1 : 0);
}

// Completes all requests; which way depends on the round.
void complete(std::vector<MPI_Request>& requests, uint64_t way) {
    const int n = static_cast<int>(requests.size());
    if (way % 3 == 0) {
        MPI_Waitall(n, requests.data(), MPI_STATUSES_IGNORE);
        return;
    }
    std::vector<int> indices(requests.size());
    for (int left = n; left > 0;) {
        int done = 0;
        if (way % 3 == 1) {
            MPI_Waitany(n, requests.data(), indices.data(), MPI_STATUS_IGNORE);
            done = 1;
        } else {
            MPI_Testsome(n, requests.data(), &done, indices.data(), MPI_STATUSES_IGNORE);
        }
        if (done > 0) left -= done;
    }
}

}  // namespace

size_t blocking_exchange(const Round& r) {
    size_t bad = 0;
    int tag = 100;
    for (size_t bytes : sizes_up_to(r.max_bytes)) {
        ++tag;
        // Every pair, in an order in which nobody waits in a circle: partners by exclusive or.
        for (int mask = 1; mask < 2 * r.world.size; mask *= 2) {
            int peer = r.world.rank ^ mask;
            if (peer < r.world.size) bad += pair_up(r, peer, bytes, tag);
        }
        for (int distance = 0; distance < r.world.size; ++distance) {
            bad += shift_by(r, distance, bytes, 1000 + tag);
        }
    }
    return bad;
}

size_t nonblocking_storm(const Round& r) {
    const int n = r.world.size;
    const int me = r.world.rank;
    std::vector<size_t> sizes = sizes_up_to(r.max_bytes);
    struct Incoming {
        int source;
        int tag;
        std::unique_ptr<Guarded> buffer;
    };
    std::vector<Incoming> incoming;
    std::vector<std::vector<unsigned char>> outgoing;
    std::vector<MPI_Request> requests;
    for (int peer = 0; peer < n; ++peer) {
        for (size_t i = 0; i < sizes.size(); ++i) {
            incoming.push_back(
                {peer, static_cast<int>(2000 + i), std::make_unique<Guarded>(sizes[i])});
        }
    }
    // Receives are posted in another order than messages are sent; half of them only afterwards,
    // so that messages arrive unexpected.
    std::sort(incoming.begin(), incoming.end(), [&](const Incoming& a, const Incoming& b) {
        return key(a.source, a.tag, r.salt(2)) < key(b.source, b.tag, r.salt(2));
    });
    auto post = [&](Incoming& in) {
        requests.emplace_back();
        MPI_Irecv(in.buffer->data(), count_of(in.buffer->size()), MPI_BYTE, in.source, in.tag,
                  MPI_COMM_WORLD, &requests.back());
    };
    size_t half = incoming.size() / 2;
    for (size_t i = 0; i < half; ++i) post(incoming[i]);
    for (size_t i = 0; i < sizes.size(); ++i) {
        for (int peer = 0; peer < n; ++peer) {
            int tag = static_cast<int>(2000 + i);
            outgoing.emplace_back(sizes[i] + 1);
            fill(outgoing.back().data(), sizes[i], key(me, tag, r.salt(3)));
            requests.emplace_back();
            MPI_Isend(outgoing.back().data(), count_of(sizes[i]), MPI_BYTE, peer, tag,
                      MPI_COMM_WORLD, &requests.back());
        }
    }
    for (size_t i = half; i < incoming.size(); ++i) post(incoming[i]);
    complete(requests, r.number);
    size_t bad = 0;
    for (const Incoming& in : incoming) {
        bad += in.buffer->check(in.buffer->size(), key(in.source, in.tag, r.salt(3)));
    }
    return bad;
}

namespace {

// Everybody sends a series to one rank, several messages with equal tags: MPI promises their order.
size_t fan_in(const Round& r, MPI_Comm comm) {
    constexpr int series = 12;
    const int root = static_cast<int>(r.number % static_cast<uint64_t>(r.world.size));
    auto size_of = [&](int source, int i) {
        size_t limit = i == series - 1 ? r.max_bytes / 2 + 1 : 3000;
        return static_cast<size_t>(key(source, i, r.salt(4)) % limit);
    };
    auto tag_of = [](int i) { return 3000 + i % 3; };
    if (r.world.rank != root) {
        for (int i = 0; i < series; ++i) {
            std::vector<unsigned char> out(size_of(r.world.rank, i) + 1);
            fill(out.data(), out.size() - 1, key(r.world.rank, i, r.salt(5)));
            MPI_Send(out.data(), count_of(out.size() - 1), MPI_BYTE, root, tag_of(i), comm);
        }
        return 0;
    }
    size_t bad = 0;
    std::map<std::pair<int, int>, int> seen;  // (source, tag) -> messages so far
    for (int left = series * (r.world.size - 1); left > 0; --left) {
        MPI_Status status;
        MPI_Probe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &status);
        int bytes = 0;
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        Guarded in(static_cast<size_t>(bytes));
        MPI_Recv(in.data(), bytes, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, comm, &status);
        int number = seen[{status.MPI_SOURCE, status.MPI_TAG}]++;
        int i = (status.MPI_TAG - 3000) + 3 * number;
        if (i >= series || size_of(status.MPI_SOURCE, i) != in.size()) {
            ++bad;
            continue;
        }
        bad += in.check(in.size(), key(status.MPI_SOURCE, i, r.salt(5)));
    }
    return bad;
}

}  // namespace

size_t wildcard_fan_in(const Round& r) {
    // Its own communicator: ranks that have sent theirs are in the next step already, whose
    // messages a wildcard on the world would take as well.
    MPI_Comm comm;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    size_t bad = fan_in(r, comm);
    MPI_Comm_free(&comm);
    return bad;
}

size_t persistent_requests(const Round& r) {
    const int n = r.world.size;
    const int to = (r.world.rank + 1) % n;
    const int from = (r.world.rank + n - 1) % n;
    const size_t sizes[] = {16, 5000, std::min<size_t>(r.max_bytes, 300000)};
    std::vector<std::vector<unsigned char>> out;
    std::vector<std::unique_ptr<Guarded>> in;
    std::vector<MPI_Request> requests;
    for (int i = 0; i < 3; ++i) {
        out.emplace_back(sizes[i]);
        in.push_back(std::make_unique<Guarded>(sizes[i]));
    }
    for (int i = 0; i < 3; ++i) {
        requests.emplace_back();
        MPI_Recv_init(in[i]->data(), count_of(sizes[i]), MPI_BYTE, from, 4000 + i, MPI_COMM_WORLD,
                      &requests.back());
        requests.emplace_back();
        MPI_Send_init(out[i].data(), count_of(sizes[i]), MPI_BYTE, to, 4000 + i, MPI_COMM_WORLD,
                      &requests.back());
    }
    size_t bad = 0;
    for (int start = 0; start < 4; ++start) {
        for (int i = 0; i < 3; ++i) {
            in[i]->reset();
            fill(out[i].data(), sizes[i], key(r.world.rank, 4000 + i, r.salt(6 + start)));
        }
        MPI_Startall(static_cast<int>(requests.size()), requests.data());
        MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
        for (int i = 0; i < 3; ++i) {
            bad += in[i]->check(sizes[i], key(from, 4000 + i, r.salt(6 + start)));
        }
    }
    for (MPI_Request& request : requests) MPI_Request_free(&request);
    return bad;
}

}  // namespace mpitest
