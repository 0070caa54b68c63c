// SPDX-License-Identifier: BSD-3-Clause
// holder --what io_uring|tcp|timer|window|shm|memfd|none [--connect HOST:PORT] [--rank R]
// [--seconds T]
// [--until-file PATH] [--give-back PATH] [--memory MB]
//
// Rank R holds a descriptor that cannot move with it: an io_uring, or a TCP connection to a
// listener that is no part of the job. Or all hold a window of memory they share with the others of
// their node, or such memory without MPI: a removed file of /dev/shm, a memfd; then each checks
// what its neighbour has written there, in turns and at the same time
// ("round N:" is said now and then), until the file PATH exists:
// the window is freed ("holder: given back"), and once more there is one, if the ranks are still
// together
// ("holder: shared again") or not ("holder: not shared"). All ranks exchange checked messages
// meanwhile. Rank 0 prints "holder: started", at the end "holder: N rounds, E errors".
#include <cstring>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <memory>
#include <netdb.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/mpi/common.hpp"

namespace {

int open_io_uring() {
    io_uring_params parameters{};
    return static_cast<int>(syscall(SYS_io_uring_setup, 4, &parameters));
}

int open_connection(const std::string& to) {
    size_t colon = to.rfind(':');
    if (colon == std::string::npos) return -1;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(to.substr(0, colon).c_str(), to.substr(colon + 1).c_str(), &hints, &found) !=
        0) {
        return -1;
    }
    int fd = ::socket(found->ai_family, found->ai_socktype, 0);
    if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        ::close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

bool is_shared(const std::string& what) {
    return what == "window" || what == "shm" || what == "memfd";
}

int hold(const mpitest::Options& options) {
    std::string what = options.text("--what", "none");
    if (what == "none" || is_shared(what)) return 0;
    if (what == "timer") {
        const itimerval far{{}, {100'000, 0}};
        return ::setitimer(ITIMER_REAL, &far, nullptr);
    }
    int fd = what == "io_uring" ? open_io_uring() : open_connection(options.text("--connect", ""));
    if (fd < 0) std::perror(("holder: " + what).c_str());
    return fd;
}

// --- memory of a node's ranks, without MPI ---

struct Packet {
    char byte = 0;
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&byte, 1};
    msghdr head{};
    Packet() {
        head.msg_iov = &data;
        head.msg_iovlen = 1;
        head.msg_control = space;
        head.msg_controllen = sizeof space;
    }
};

void send_descriptor(int socket, int fd) {
    Packet packet;
    cmsghdr* rights = CMSG_FIRSTHDR(&packet.head);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    if (sendmsg(socket, &packet.head, 0) != 1) std::perror("holder: send");
}

int receive_descriptor(int socket) {
    Packet packet;
    int fd = -1;
    if (recvmsg(socket, &packet.head, 0) != 1) return -1;
    if (cmsghdr* rights = CMSG_FIRSTHDR(&packet.head))
        std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    return fd;
}

// All get the descriptor of the first; it has no name, or not any more.
int one_descriptor(MPI_Comm node, const std::string& kind, size_t bytes) {
    int rank = 0, size = 1;
    MPI_Comm_rank(node, &rank);
    MPI_Comm_size(node, &size);
    long number = ::getpid();
    MPI_Bcast(&number, 1, MPI_LONG, 0, node);
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    const std::string name = "/holder-" + std::to_string(number);
    std::memcpy(place.sun_path + 1, name.data(), name.size());
    auto* address = reinterpret_cast<sockaddr*>(&place);
    const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
    int fd = -1;
    if (rank == 0) {
        fd = kind == "memfd" ? ::memfd_create("holder", 0)
                             : ::shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
        if (kind != "memfd") ::shm_unlink(name.c_str());
        if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
            ::bind(socket, address, sizeof place) != 0 || ::listen(socket, size) != 0)
            std::perror("holder: share");
    }
    MPI_Barrier(node);
    if (rank != 0 && ::connect(socket, address, sizeof place) == 0) fd = receive_descriptor(socket);
    for (int i = 1; rank == 0 && i < size; ++i) {
        const int peer = ::accept(socket, nullptr, nullptr);
        send_descriptor(peer, fd);
        ::close(peer);
    }
    ::close(socket);
    return fd;
}

// A word of each rank of this node (as MPI sees it), in memory they share.
class SharedWindow {
  public:
    // Nobody keeps the descriptor.
    explicit SharedWindow(const std::string& kind) : SharedWindow(MPI_COMM_WORLD) {
        const size_t bytes = 4096 * static_cast<size_t>(size_);
        const int fd = one_descriptor(node_, kind, bytes);
        void* all = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || all == MAP_FAILED) MPI_Abort(MPI_COMM_WORLD, 78);
        ::close(fd);
        mine_ = static_cast<uint64_t*>(all) + 512 * rank_;
        theirs_ = static_cast<uint64_t*>(all) + 512 * ((rank_ + 1) % size_);
    }
    SharedWindow() : SharedWindow(MPI_COMM_WORLD) {
        const MPI_Aint bytes = 3 * 4096;
        if (MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, node_, &mine_, &win_) != MPI_SUCCESS) {
            mine_ = nullptr;
            return;
        }
        MPI_Aint size = 0;
        int unit = 0;
        MPI_Win_shared_query(win_, (rank_ + 1) % size_, &size, &unit, &theirs_);
    }
    ~SharedWindow() {
        if (win_ != MPI_WIN_NULL) MPI_Win_free(&win_);
        MPI_Comm_free(&node_);
    }
    SharedWindow(const SharedWindow&) = delete;
    SharedWindow& operator=(const SharedWindow&) = delete;

    bool made() const { return mine_ != nullptr; }
    size_t round(uint64_t number) {
        if (!made()) return 1;
        meet();
        *mine_ = mpitest::key(rank_, 2, number);
        meet();
        return (*theirs_ != mpitest::key((rank_ + 1) % size_, 2, number) ? 1 : 0) + race();
    }

  private:
    explicit SharedWindow(MPI_Comm world) {
        MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_);
        MPI_Comm_rank(node_, &rank_);
        MPI_Comm_size(node_, &size_);
        MPI_Comm_set_errhandler(node_, MPI_ERRORS_RETURN);
    }
    void meet() { win_ != MPI_WIN_NULL ? MPI_Win_fence(0, win_) : MPI_Barrier(node_); }
    // All count at the same time, without MPI. What one has written is there until it writes more;
    // what it has seen of the other's count does not go back.
    size_t race() {
        constexpr double seconds = 0.002;
        size_t errors = 0;
        for (const double end = MPI_Wtime() + seconds; MPI_Wtime() < end;) {
            if (__atomic_load_n(mine_ + 1, __ATOMIC_ACQUIRE) != count_) ++errors;
            __atomic_store_n(mine_ + 1, ++count_, __ATOMIC_RELEASE);
            const uint64_t now = __atomic_load_n(theirs_ + 1, __ATOMIC_ACQUIRE);
            if (now < seen_) ++errors;
            seen_ = now;
        }
        return errors;
    }

    uint64_t count_ = 0, seen_ = 0;
    MPI_Comm node_ = MPI_COMM_NULL;
    MPI_Win win_ = MPI_WIN_NULL;
    int rank_ = 0, size_ = 1;
    uint64_t* mine_ = nullptr;
    uint64_t* theirs_ = nullptr;
};

size_t exchange(const mpitest::World& world, uint64_t round) {
    constexpr size_t bytes = 3000;
    const int to = (world.rank + 1) % world.size;
    const int from = (world.rank + world.size - 1) % world.size;
    std::vector<unsigned char> out(bytes), in(bytes);
    mpitest::fill(out.data(), bytes, mpitest::key(world.rank, 1, round));
    MPI_Sendrecv(out.data(), bytes, MPI_BYTE, to, 1, in.data(), bytes, MPI_BYTE, from, 1,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return mpitest::wrong(in.data(), bytes, mpitest::key(from, 1, round));
}

void say(const mpitest::World& world, const char* what) {
    if (world.rank != 0) return;
    std::printf("holder: %s\n", what);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    if (world.rank == static_cast<int>(options.number("--rank", 0)) && hold(options) < 0) {
        MPI_Abort(MPI_COMM_WORLD, 77);
    }
    mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 0)), world.rank);
    std::unique_ptr<SharedWindow> shared;
    const std::string what = options.text("--what", "");
    if (what == "window") shared = std::make_unique<SharedWindow>();
    if (what == "shm" || what == "memfd") shared = std::make_unique<SharedWindow>(what);
    MPI_Barrier(MPI_COMM_WORLD);
    say(world, "started");
    mpitest::Limit limit(options, 1000);
    uint64_t rounds = 0, errors = 0;
    const std::string give_back = options.text("--give-back", "");
    while (world.agree(!limit.reached(rounds))) {
        if (shared) errors += shared->round(rounds);
        if (shared && rounds % 16 == 1)
            say(world, ("round " + std::to_string(rounds) + ":").c_str());
        if (shared && world.agree(::access(give_back.c_str(), F_OK) == 0)) {
            shared.reset();
            say(world, "given back");
        }
        errors += exchange(world, rounds++);
    }
    if (!give_back.empty()) say(world, SharedWindow().made() ? "shared again" : "not shared");
    shared.reset();
    errors = world.sum(errors + ballast.wrong_words());
    world.say_end("holder", rounds, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
