// SPDX-License-Identifier: BSD-3-Clause
// Fault points: places at which a test lets one process of Ghost die, hang, fail, lose its
// connection or be slow. tests/net/fault_matrix tries every point with every kind of fault it has.
//
// A process that is started with GHOST_FAULTS=FOLDER in its environment looks there whenever it
// passes a point: the file FOLDER/PARTY:POINT@NODE, of that node's host name, holds what is to
// happen: "die", "hang", "error", "cut", "slow" or "slow MILLISECONDS". Who passes first takes it,
// by renaming it to PARTY:POINT@NODE.struck, and adds the number of the process that is struck: a
// fault strikes one process once, later operations of the same job are as without.
//
//   GHOST_TRY(fault::pass(fault::Point::wrapper_exports));
//   if (auto fine = fault::pass(point, [&] { connection.hang_up(); }); !fine) return fail(…);
//
// Without the variable a point is one branch. It is read once, from the environment that the
// process was started with, and not at all by one whose privileges differ from its caller's
// (secure_getenv(3)); a folder that others than its user may write to is ignored
// (docs/SECURITY.md). A point owns no descriptor, thread or memory: they are in ranks as well.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include "base/result.hpp"

namespace ghost::fault {

// What happens to who passes.
enum class Kind : uint8_t {
    die,    // SIGKILL
    hang,   // SIGSTOP, until somebody sends SIGCONT
    error,  // the step fails
    cut,    // the connection the step works with is shut down, at both ends
    slow,   // it sleeps, 2 s if nothing else is said
};

constexpr std::array<const char*, 5> kind_names = {"die", "hang", "error", "cut", "slow"};

// Where. One line in `points` for each.
enum class Point : uint8_t {
    // coordinator, in mpirun
    coordinator_prepares,
    coordinator_connects,
    coordinator_gates,
    coordinator_decides,
    coordinator_goes,
    coordinator_snap_prepares,
    coordinator_snap_gates,
    coordinator_snap_closes,
    coordinator_snap_completes,
    coordinator_snap_ends,
    coordinator_restart_checks,
    coordinator_restart_goes,
    // node agent
    node_prepares,
    node_connects,
    node_gates,
    node_closes,
    node_exports,
    node_holds,
    node_leaves,
    node_joins,
    node_goes,
    node_returns,
    node_snap_prepares,
    node_snap_freezes,
    node_snap_writes,
    node_snap_ends,
    node_restart_imports,
    // wrapper
    wrapper_connects,
    wrapper_exports,
    wrapper_exported,
    wrapper_leaves,
    wrapper_resumes,
    wrapper_prepares,
    wrapper_imports,
    wrapper_holds,
    wrapper_goes,
    wrapper_snap_prepares,
    wrapper_snap_freezes,
    wrapper_snap_captured,
    wrapper_snap_written,
    // first process of a rank's name space
    init_exported,
    init_held,
    init_goes,
    init_snap_captured,
    // rank agent
    agent_gates,
    agent_closes,
    agent_wakes,
    agent_attaches,
    // criu
    criu_dumps,
    criu_dumped,
    criu_restores,
    // sender and receiver of pages
    pages_sent_first,
    pages_sent_last,
    pages_received_first,
    pages_received_last,
    pages_sent_round,
    pages_received_round,
};

struct PointRow {
    Point point;
    const char* party;
    const char* name;
    const char* kinds;  // that it has: a letter for each, as they begin
    const char* where;  // what has been done, and by whom
    bool has(Kind kind) const;
    std::string title() const;  // PARTY:POINT
};

// Row i is the i-th point's.
extern const std::array<PointRow, static_cast<size_t>(Point::pages_received_round) + 1> points;

namespace detail {
// Of GHOST_FAULTS; null: there are none.
const char* folder();
inline bool planted() {
    static const bool any = folder() != nullptr;
    return any;
}
Status strike(Point point, pid_t process, const std::function<void()>& cut);
}  // namespace detail

// Another process, which cannot say by itself where it is.
struct Process {
    pid_t pid;
};

// io: the step is to fail. Any thread.
inline Status pass(Point point) {
    return detail::planted() ? detail::strike(point, 0, {}) : Status();
}
// The fault strikes that process.
inline Status pass(Point point, Process other) {
    return detail::planted() ? detail::strike(point, other.pid, {}) : Status();
}
// `cut` shuts the step's connection down.
template <std::invocable Cut>
Status pass(Point point, Cut&& cut) {
    return detail::planted() ? detail::strike(point, 0, cut) : Status();
}
template <std::invocable Cut>
Status pass(Point point, Process other, Cut&& cut) {
    return detail::planted() ? detail::strike(point, other.pid, cut) : Status();
}

// False: the step is to fail, and `fail` was told why.
template <typename Fail>
bool passes(Point point, Fail&& fail) {
    const Status fine = pass(point);
    if (!fine) fail(fine.error().message());
    return fine.ok();
}

}  // namespace ghost::fault
