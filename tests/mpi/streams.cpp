// SPDX-License-Identifier: BSD-3-Clause
// streams [--iterations N] [--until-file PATH] [--closed-file PATH] [--none]
//
// MPI and kernet.h in one program. In every round each rank makes a DIRECT stream to the next one,
// whose number goes by MPI, and sends messages of many sizes; in every other round the writer's
// socket is suspended in between and its handle goes by MPI to another rank, which wakes it up and
// sends the rest. Then every rank writes to a FIFO that rank 0 reads. In the first round each rank
// also starts a program that is no MPI program (this one, with --plain) and writes to a stream of
// its own. Rank 0 prints "round N: STREAMS" and at the end "streams: N rounds, BYTES bytes, E
// errors". While the file of --closed-file exists the ranks have no part in streams (kernet_close)
// and only use MPI: "closed N". With --none there must be no stream manager at all.
// Links libkernet, as a user's program would.
#include <spawn.h>
#include <sys/wait.h>

#include "kernet.h"
#include "tests/mpi/common.hpp"

extern char** environ;

namespace {

constexpr int limit = 60'000;  // ms
constexpr size_t sizes[] = {1, 100, 0, 5000, 200'000, 33, 60'000};
constexpr size_t before_move = 4;  // messages

[[noreturn]] void give_up(const char* what) {
    std::fprintf(stderr, "streams: %s: %s\n", what, kernet_error());
    MPI_Abort(MPI_COMM_WORLD, 3);
    std::abort();
}

int good(int result, const char* what) {
    if (result < 0) give_up(what);
    return result;
}

class Ring {
  public:
    Ring(const mpitest::World& world, kernet_node* node) : world_(world), node_(node) {}

    // Returns the bytes this rank has received.
    uint64_t round(uint64_t number) {
        number_ = number;
        kernet_stream mine = 0, theirs = 0;
        good(kernet_create(node_, KERNET_DIRECT, 2, &mine), "create");
        swap(&mine, &theirs, sizeof mine, 1);
        int out = good(kernet_attach(node_, mine, KERNET_WRITER), "attach");
        const int in = good(kernet_attach(node_, theirs, KERNET_READER), "attach");
        good(kernet_wait(node_, out, limit), "wait");
        good(kernet_wait(node_, in, limit), "wait");
        MPI_Barrier(MPI_COMM_WORLD);  // who still waits would wait for one that is suspended
        writer_ = world_.rank;
        send(out, 0, before_move);
        if (number % 2 == 1) out = hand_over(out);
        send(out, before_move, std::size(sizes));
        const uint64_t bytes = receive(in);
        good(kernet_unattach(node_, out, limit), "unattach");
        good(kernet_unattach(node_, in, limit), "unattach");
        fifo();
        return bytes;
    }
    uint64_t errors() const { return errors_; }

  private:
    // To the rank `step` further on, from the one as far back.
    void swap(const void* out, void* in, size_t size, int step) const {
        const int bytes = static_cast<int>(size), ranks = world_.size;
        MPI_Sendrecv(out, bytes, MPI_BYTE, (world_.rank + step) % ranks, 1, in, bytes, MPI_BYTE,
                     (world_.rank - step % ranks + ranks) % ranks, 1, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
    }
    void send(int socket, size_t from, size_t to) const {
        for (size_t i = from; i < to; ++i) {
            std::vector<char> bytes(sizes[i]);
            mpitest::fill(bytes.data(), bytes.size(),
                          mpitest::key(writer_, static_cast<int>(i), number_));
            good(kernet_send(node_, socket, bytes.data(), bytes.size(), limit), "send");
        }
    }
    uint64_t receive(int socket) {
        const int from = (world_.rank - 1 + world_.size) % world_.size;
        std::vector<char> bytes(256 * 1024);
        uint64_t sum = 0;
        for (size_t i = 0; i < std::size(sizes); ++i) {
            const ssize_t got = kernet_recv(node_, socket, bytes.data(), bytes.size(), limit);
            if (got < 0) give_up("recv");
            const auto size = static_cast<size_t>(got);
            errors_ += size != sizes[i] ? 1 : 0;
            errors_ += mpitest::wrong(bytes.data(), size,
                                      mpitest::key(from, static_cast<int>(i), number_));
            sum += size;
        }
        return sum;
    }
    // The socket goes on in the rank after the next, another one comes here.
    int hand_over(int socket) {
        void* handle = nullptr;
        uint64_t size = 0, other = 0;
        size_t bytes = 0;
        good(kernet_suspend(node_, socket, &handle, &bytes), "suspend");
        size = bytes;
        swap(&size, &other, sizeof size, 2);
        std::vector<char> out(static_cast<char*>(handle), static_cast<char*>(handle) + bytes);
        kernet_free(handle);
        std::vector<char> in(other);
        const int ranks = world_.size;
        const int to = (world_.rank + 2) % ranks, from = (world_.rank - 2 % ranks + ranks) % ranks;
        MPI_Sendrecv(out.data(), static_cast<int>(size), MPI_BYTE, to, 2, in.data(),
                     static_cast<int>(other), MPI_BYTE, from, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        writer_ = from;
        return good(kernet_wakeup(node_, in.data(), in.size()), "wakeup");
    }
    void fifo() {
        kernet_stream stream = 0;
        if (world_.rank == 0) good(kernet_create(node_, KERNET_FIFO, 0, &stream), "create");
        MPI_Bcast(&stream, sizeof stream, MPI_BYTE, 0, MPI_COMM_WORLD);
        const int socket =
            good(kernet_attach(node_, stream, world_.rank == 0 ? KERNET_READER : KERNET_WRITER),
                 "attach");
        if (world_.rank == 0) {
            std::vector<int> seen(static_cast<size_t>(world_.size));
            for (int i = 1; i < world_.size; ++i) {
                int who = 0;
                if (kernet_recv(node_, socket, &who, sizeof who, limit) != sizeof who) {
                    give_up("recv");
                }
                ++seen.at(static_cast<size_t>(who));
            }
            for (size_t i = 1; i < seen.size(); ++i) errors_ += seen[i] != 1 ? 1 : 0;
        } else {
            good(kernet_send(node_, socket, &world_.rank, sizeof world_.rank, limit), "send");
        }
        good(kernet_unattach(node_, socket, limit), "unattach");
        MPI_Barrier(MPI_COMM_WORLD);
        if (world_.rank == 0) good(kernet_destroy(node_, stream), "destroy");
    }

    const mpitest::World& world_;
    kernet_node* node_;
    uint64_t number_ = 0, errors_ = 0;
    int writer_ = 0;  // whose messages the socket here has
};

// --- a program that is no MPI program ---

constexpr char hello[] = "from a child";

int plain(const char* number) {
    kernet_node* node = kernet_open(nullptr);
    const kernet_stream stream = std::strtoull(number, nullptr, 16);
    const int socket = node ? kernet_attach(node, stream, KERNET_WRITER) : -1;
    const bool sent = socket >= 0 && kernet_send(node, socket, hello, sizeof hello, limit) == 0 &&
                      kernet_unattach(node, socket, limit) == 0;
    if (!sent) std::fprintf(stderr, "streams --plain: %s\n", kernet_error());
    kernet_close(node);
    return sent ? 0 : 1;
}

uint64_t hear_a_child(kernet_node* node, const char* program) {
    kernet_stream stream = 0;
    good(kernet_create(node, KERNET_DIRECT, 2, &stream), "create");
    const int socket = good(kernet_attach(node, stream, KERNET_READER), "attach");
    char number[17], got[100] = "", option[] = "--plain";
    std::snprintf(number, sizeof number, "%llx", static_cast<unsigned long long>(stream));
    char* const words[] = {const_cast<char*>(program), option, number, nullptr};
    pid_t child = 0;
    if (posix_spawn(&child, program, nullptr, nullptr, words, environ) != 0) return 1;
    const ssize_t size = kernet_recv(node, socket, got, sizeof got, limit);
    if (size < 0) give_up("recv from a child");
    good(kernet_unattach(node, socket, limit), "unattach");
    int status = -1;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    return std::strcmp(got, hello) == 0 ? 0 : 1;
}

// --- the job ---

int none(const mpitest::World& world) {
    const bool opened = kernet_open(nullptr) != nullptr || std::getenv("KERNET_MANAGER") != nullptr;
    const uint64_t errors = world.sum(opened ? 1 : 0);
    if (world.rank == 0) {
        std::printf("streams: no manager (%s), %llu errors\n", kernet_error(),
                    static_cast<unsigned long long>(errors));
    }
    return errors == 0 ? 0 : 1;
}

kernet_node* opened() {
    kernet_node* node = kernet_open(nullptr);
    if (!node) give_up("open");
    return node;
}

int run(const mpitest::World& world, const mpitest::Options& options, const char* program) {
    mpitest::Limit end(options, 10);
    const std::string closed_file = options.text("--closed-file", "/nowhere");
    kernet_node* node = opened();
    uint64_t errors = hear_a_child(node, program), bytes = 0, rounds = 0, pauses = 0;
    while (world.agree(!end.reached(rounds))) {
        if (world.agree(::access(closed_file.c_str(), F_OK) != 0)) {
            if (!node) node = opened();
            Ring ring(world, node);
            bytes += ring.round(rounds++);
            errors += ring.errors();
            if (world.rank == 0) std::printf("round %llu: streams\n", (unsigned long long)rounds);
        } else {
            kernet_close(node);
            node = nullptr;
            if (world.sum(1) != static_cast<uint64_t>(world.size)) ++errors;
            if (world.rank == 0) std::printf("closed %llu\n", (unsigned long long)++pauses);
            ::usleep(100'000);
        }
        std::fflush(stdout);
    }
    kernet_close(node);
    errors = world.sum(errors);
    bytes = world.sum(bytes);
    if (world.rank == 0) {
        std::printf("streams: %llu rounds, %llu bytes, %llu errors\n", (unsigned long long)rounds,
                    (unsigned long long)bytes, (unsigned long long)errors);
    }
    return errors == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "--plain") == 0) return plain(argv[2]);
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const int status = options.flag("--none") ? none(world) : run(world, options, argv[0]);
    MPI_Finalize();
    return status;
}
