// SPDX-License-Identifier: BSD-3-Clause
// What a peer notices of a socket that is suspended and woken up: how much longer than the socket
// was away its answer takes.
//
//   wakeup_speed MANAGER OTHER [--hops N]
//
// Two processes with a DIRECT stream: one stays with MANAGER and sends questions, the other answers
// them and hops now and then from MANAGER to OTHER (which may be the same) or back between question
// and answer. Of such an answer the time away, from the call of kernet_suspend() to the return of
// kernet_wakeup(), does not count; a round trip is in what is left. `busy` are those of the answers
// that took more than 1 ms for which threads of the two waited for a processor for that long, by
// what the kernel counts: on a machine that others use, these say nothing. Prints one JSON object,
// microseconds; `first` is the hop after which there is no link between the two processes yet.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "kernet-btl/include/kernet.h"

namespace {

constexpr int questions_between_hops = 10;
constexpr int64_t limit_us = 1000;
constexpr int timeout_ms = 20'000;

struct Answer {
    int64_t away_us = -1;    // no hop
    int64_t waited_us = -1;  // the first answer behind one: since its socket was back
};

[[noreturn]] void fail(const char* what) {
    fmt::print(stderr, "wakeup_speed: {}: {}\n", what, kernet_error());
    std::exit(1);
}

// How long the threads of this process have waited for a processor so far
// (Documentation/scheduler/sched-stats.rst).
int64_t waited_us() {
    int64_t sum = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        int64_t ran = 0, waited = 0;
        std::ifstream(task.path() / "schedstat") >> ran >> waited;
        sum += waited;
    }
    return sum / 1000;
}

void check(const char* what, bool good) {
    if (!good) fail(what);
}

kernet_node* open_at(const std::string& manager) {
    kernet_node* node = kernet_open(manager.c_str());
    check("open", node != nullptr);
    return node;
}

double part(std::vector<int64_t>& of, double share) {
    std::sort(of.begin(), of.end());
    return of.empty()
               ? 0
               : static_cast<double>(
                     of[static_cast<size_t>(share * static_cast<double>(of.size() - 1) + 0.5)]);
}

void stay(const std::string& manager, int hops, int tell) {
    kernet_node* node = open_at(manager);
    kernet_stream stream = 0;
    check("create", kernet_create(node, KERNET_DIRECT, 2, &stream) == 0);
    const int socket = kernet_attach(node, stream, KERNET_BOTH);
    check("attach", socket > 0);
    check("tell", write(tell, &stream, sizeof stream) == sizeof stream);
    check("wait", kernet_wait(node, socket, timeout_ms) == 0);
    std::vector<int64_t> later, usual, away;
    int64_t first = 0, waited = 0;
    int above = 0, busy = 0;
    for (int i = 0; i < hops * questions_between_hops + 1; i++) {
        Answer answer;
        const bool hops_now = i % questions_between_hops == questions_between_hops - 1;
        const int64_t waited_before = hops_now ? waited_us() : 0;
        const int64_t begun = ghost::monotonic_us();
        check("ask", kernet_send(node, socket, &i, sizeof i, timeout_ms) == 0);
        check("hear", kernet_recv(node, socket, &answer, sizeof answer, timeout_ms) ==
                          ssize_t{sizeof answer});
        const int64_t time = ghost::monotonic_us() - begun;
        if (answer.waited_us >= 0 && !later.empty() && later.back() > limit_us) {
            above++;
            if (waited + answer.waited_us > later.back() - limit_us) busy++;
        }
        if (answer.away_us < 0) {
            usual.push_back(time);
            continue;
        }
        waited = waited_us() - waited_before;
        away.push_back(answer.away_us);
        later.push_back(time - answer.away_us);
        if (first == 0) first = later.back();
    }
    fmt::print("{{\"hops\": {}, \"first\": {}, \"median\": {}, \"p90\": {}, \"max\": {}, ",
               later.size(), first, part(later, 0.5), part(later, 0.9), part(later, 1));
    fmt::print("\"above_1_ms\": {}, \"busy\": {}, \"round_trip\": {}, ", above, busy,
               part(usual, 0.5));
    fmt::print("\"away\": {}, \"away_max\": {}}}\n", part(away, 0.5), part(away, 1));
    kernet_unattach(node, socket, 1000);
    kernet_close(node);
}

void hop(const std::string& manager, const std::string& other, int hops, int told) {
    kernet_stream stream = 0;
    check("be told", read(told, &stream, sizeof stream) == sizeof stream);
    kernet_node* nodes[2] = {open_at(manager), manager == other ? nullptr : open_at(other)};
    if (!nodes[1]) nodes[1] = nodes[0];
    int at = 0;
    int socket = kernet_attach(nodes[at], stream, KERNET_BOTH);
    check("attach", socket > 0);
    int64_t back_at = -1;
    for (int i = 0; i < hops * questions_between_hops + 1; i++) {
        int question = 0;
        Answer answer;
        check("be asked", kernet_recv(nodes[at], socket, &question, sizeof question, timeout_ms) ==
                              ssize_t{sizeof question});
        if (back_at >= 0) answer.waited_us = waited_us() - std::exchange(back_at, -1);
        if (i % questions_between_hops == questions_between_hops - 1) {
            void* handle = nullptr;
            size_t size = 0;
            const int64_t begun = ghost::monotonic_us();
            check("suspend", kernet_suspend(nodes[at], socket, &handle, &size) == 0);
            at = 1 - at;
            socket = kernet_wakeup(nodes[at], handle, size);
            check("wake up", socket > 0);
            answer.away_us = ghost::monotonic_us() - begun;
            back_at = waited_us();
            kernet_free(handle);
        }
        check("answer", kernet_send(nodes[at], socket, &answer, sizeof answer, timeout_ms) == 0);
    }
    kernet_unattach(nodes[at], socket, 1000);
    kernet_close(nodes[0]);
    if (nodes[1] != nodes[0]) kernet_close(nodes[1]);
}

}  // namespace

int main(int argc, char** argv) {
    std::string manager, other;
    int hops = 200;
    CLI::App app("What a peer notices of a socket that is suspended and woken up");
    app.add_option("manager", manager, "the manager of who stays")->required();
    app.add_option("other", other, "the manager hopped to and from")->required();
    app.add_option("--hops", hops, "how often")->check(CLI::PositiveNumber);
    CLI11_PARSE(app, argc, argv);
    int ends[2];
    if (pipe(ends) != 0) return 1;
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        hop(manager, other, hops, ends[0]);
        return 0;
    }
    stay(manager, hops, ends[1]);
    int status = 0;
    waitpid(child, &status, 0);
    return status == 0 ? 0 : 1;
}
