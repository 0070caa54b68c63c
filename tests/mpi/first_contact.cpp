// SPDX-License-Identifier: BSD-3-Clause
// first_contact --when PATH [--kind message|window|group|intercomm|connect|spawn|ended|deaf]
//               [--memory MB]
//
// Ranks that have never had to do with each other: until the file PATH.K is there nobody is inside
// MPI. With `message` rank 0 sends rank K its first message then, for each K from 1 on, and waits
// for the answer. With the others all ranks make the call when PATH.1 is there: they create a
// window; ranks 0 and 1 make a communicator of their own, or one between them; rank 0 connects to
// rank 1, which accepts; all of them spawn a process. Nobody ends before PATH.K of the last rank K
// is there.
// With `ended` rank 1 ends when PATH.1 is there, without MPI_Finalize, and rank 0 sends its first
// message to it when PATH.2 is, under MPI_ERRORS_RETURN, and ends; with `deaf` rank 1 has no
// descriptor left from PATH.1 on, so that nobody reaches it, rank 0 waits for its answer, and rank
// 1 ends when PATH.3 is there. Each rank says "first_contact: ready R", rank 0 "first_contact: rank
// K" for each contact, and at the end "first_contact: N ranks, E errors".
#include <fstream>
#include <sys/resource.h>

#include "tests/mpi/common.hpp"

namespace {

using mpitest::World;

void say(const char* what, int rank) {
    std::printf("first_contact: %s %d\n", what, rank);
    std::fflush(stdout);
}

void await(const std::string& file) {
    while (access(file.c_str(), F_OK) != 0) usleep(1000);
}

// --- messages ---

void answer() {
    int there = 0, value = 0;
    for (; there == 0; usleep(2000)) MPI_Iprobe(0, 0, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
    MPI_Recv(&value, 1, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Send(&value, 1, MPI_INT, 0, 0, MPI_COMM_WORLD);
}

// One in MPI_Finalize cannot be moved any more.
void stay(const std::string& file) {
    for (int there = 0; access(file.c_str(), F_OK) != 0; usleep(2000))
        MPI_Iprobe(0, 0, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
}

bool meet(int rank, const std::string& when) {
    await(when);
    int value = -1;
    MPI_Send(&rank, 1, MPI_INT, rank, 0, MPI_COMM_WORLD);
    MPI_Recv(&value, 1, MPI_INT, rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    say("rank", rank);
    return value == rank;
}

uint64_t messages(const World& world, const std::string& when) {
    uint64_t errors = 0;
    if (world.rank != 0) answer();
    for (int rank = 1; world.rank == 0 && rank < world.size; ++rank)
        errors += meet(rank, when + "." + std::to_string(rank)) ? 0 : 1;
    return errors;
}

// --- calls ---

// Whether everybody of the other side, or of this one, is really there.
bool sums_up(MPI_Comm all) {
    int mine = 1, sum = 0, local = 0, remote = 0, between = 0;
    MPI_Comm_test_inter(all, &between);
    MPI_Comm_size(all, &local);
    if (between != 0) MPI_Comm_remote_size(all, &remote);
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, all);
    return sum == (between != 0 ? remote : local);
}

bool window(const World& world) {
    std::vector<int> memory(static_cast<size_t>(world.size), -1);
    MPI_Win win = MPI_WIN_NULL;
    MPI_Win_create(memory.data(), static_cast<MPI_Aint>(memory.size() * sizeof(int)), sizeof(int),
                   MPI_INFO_NULL, MPI_COMM_WORLD, &win);
    MPI_Win_fence(0, win);
    for (int to = 0; to < world.size; ++to)
        MPI_Put(&world.rank, 1, MPI_INT, to, world.rank, 1, MPI_INT, win);
    MPI_Win_fence(0, win);
    bool right = true;
    for (int from = 0; from < world.size; ++from)
        right = right && memory[static_cast<size_t>(from)] == from;
    MPI_Win_free(&win);
    return right;
}

bool group(const World& world) {
    if (world.rank > 1) return true;
    MPI_Group everybody, two;
    const int ranks[] = {0, 1};
    MPI_Comm_group(MPI_COMM_WORLD, &everybody);
    MPI_Group_incl(everybody, 2, ranks, &two);
    MPI_Comm pair = MPI_COMM_NULL;
    MPI_Comm_create_group(MPI_COMM_WORLD, two, 7, &pair);
    return sums_up(pair);
}

bool intercomm(const World& world) {
    if (world.rank > 1) return true;
    MPI_Comm between = MPI_COMM_NULL;
    MPI_Intercomm_create(MPI_COMM_SELF, 0, MPI_COMM_WORLD, 1 - world.rank, 8, &between);
    return sums_up(between);
}

bool connect(const World& world, const std::string& port_file) {
    if (world.rank > 1) return true;
    char port[MPI_MAX_PORT_NAME] = {};
    std::ifstream(port_file).getline(port, sizeof port);
    MPI_Comm between = MPI_COMM_NULL;
    const auto call = world.rank == 0 ? MPI_Comm_connect : MPI_Comm_accept;
    call(port, MPI_INFO_NULL, 0, MPI_COMM_SELF, &between);
    const bool right = sums_up(between);
    MPI_Comm_disconnect(&between);
    return right;
}

bool spawn(const char* program) {
    MPI_Comm between = MPI_COMM_NULL;
    MPI_Comm_spawn(program, MPI_ARGV_NULL, 1, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &between,
                   MPI_ERRCODES_IGNORE);
    const bool right = sums_up(between);
    MPI_Comm_disconnect(&between);
    return right;
}

// What a spawned process does.
int be_guest(MPI_Comm hosts) {
    const bool right = sums_up(hosts);
    MPI_Comm_disconnect(&hosts);
    MPI_Finalize();
    return right ? 0 : 1;
}

void open_port(const std::string& port_file) {
    char port[MPI_MAX_PORT_NAME] = {};
    MPI_Open_port(MPI_INFO_NULL, port);
    std::ofstream(port_file) << port << std::endl;
}

// --- ranks that end ---

[[noreturn]] void send_to_the_dead() {
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int value = 1, length = 0;
    char text[MPI_MAX_ERROR_STRING] = {};
    const int error = MPI_Send(&value, 1, MPI_INT, 1, 0, MPI_COMM_WORLD);
    MPI_Error_string(error, text, &length);
    std::printf("first_contact: rank 1 is told %s\n", text);
    std::fflush(stdout);
    std::_Exit(error == MPI_SUCCESS ? 1 : 0);
}

[[noreturn]] void end(const World& world, const std::string& when) {
    await(when + (world.rank == 0 ? ".2" : ".1"));
    if (world.rank == 0) send_to_the_dead();
    std::_Exit(0);
}

[[noreturn]] void end_unheard(const World& world, const std::string& when) {
    await(when + (world.rank == 0 ? ".2" : ".1"));
    int value = 1;
    if (world.rank == 0) {
        MPI_Send(&value, 1, MPI_INT, 1, 0, MPI_COMM_WORLD);
        say("sent to", 1);
        MPI_Recv(&value, 1, MPI_INT, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    const rlimit none{};
    setrlimit(RLIMIT_NOFILE, &none);
    say("deaf", world.rank);
    await(when + ".3");
    std::_Exit(0);
}

bool call(const std::string& kind, const World& world, const std::string& when, char** argv) {
    if (kind == "ended") end(world, when);
    if (kind == "deaf") end_unheard(world, when);
    await(when + ".1");
    if (kind == "window") return window(world);
    if (kind == "group") return group(world);
    if (kind == "intercomm") return intercomm(world);
    if (kind == "connect") return connect(world, when + ".port");
    if (kind == "spawn") return spawn(argv[0]);
    std::fprintf(stderr, "first_contact: no such kind: %s\n", kind.c_str());
    return false;
}

}  // namespace

int main(int argc, char** argv) {
    const World world(&argc, &argv);
    MPI_Comm hosts = MPI_COMM_NULL;
    MPI_Comm_get_parent(&hosts);
    if (hosts != MPI_COMM_NULL) return be_guest(hosts);
    const mpitest::Options options(argc, argv);
    const mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 0)), world.rank);
    const std::string kind = options.text("--kind", "message"), when = options.text("--when", "go");
    if (kind == "connect" && world.rank == 1) open_port(when + ".port");
    say("ready", world.rank);
    uint64_t errors = 0;
    if (kind == "message") {
        errors = messages(world, when);
    } else {
        errors = call(kind, world, when, argv) ? 0 : 1;
        if (world.rank == 0) say("rank", 1);
    }
    stay(when + "." + std::to_string(world.size - 1));
    errors = world.sum(errors + ballast.wrong_words());
    world.say_end("first_contact", static_cast<uint64_t>(world.size - 1), "ranks", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
