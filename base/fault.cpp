// SPDX-License-Identifier: BSD-3-Clause
#include "base/addresses.hpp"
#include "base/fault.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"

namespace ghost::fault {
namespace {

using P = Point;
constexpr int64_t slow_ms = 2000;
constexpr const char* struck = ".struck";

consteval bool in_order(const auto& rows) {
    for (size_t i = 0; i < rows.size(); ++i)
        if (static_cast<size_t>(rows[i].point) != i) return false;
    return true;
}

constexpr std::array<PointRow, static_cast<size_t>(P::pages_received_round) + 1> rows = {{
    {P::coordinator_prepares, "coordinator", "prepares", "dhes", "before it tells the target"},
    {P::coordinator_connects, "coordinator", "connects", "dhes", "the target is ready"},
    {P::coordinator_gates, "coordinator", "gates", "dhes", "the fences are held"},
    {P::coordinator_decides, "coordinator", "decides", "dhes", "exported and held"},
    {P::coordinator_goes, "coordinator", "goes", "dhs", "all daemons have switched"},
    {P::coordinator_snap_prepares, "coordinator", "snap-prepares", "dhes", "the folder is made"},
    {P::coordinator_snap_gates, "coordinator", "snap-gates", "dhes", "the fences are held"},
    {P::coordinator_snap_closes, "coordinator", "snap-closes", "dhes", "all gates are closed"},
    {P::coordinator_snap_completes, "coordinator", "snap-completes", "dhes", "all have written"},
    {P::coordinator_snap_ends, "coordinator", "snap-ends", "dhs", "the manifest is written"},
    {P::coordinator_restart_checks, "coordinator", "restart-checks", "dhes", "all are launched"},
    {P::coordinator_restart_goes, "coordinator", "restart-goes", "dhes", "all are held"},
    {P::node_prepares, "node", "prepares", "dhecs", "target: its wrapper is started"},
    {P::node_connects, "node", "connects", "dhecs", "source: before it tells its wrapper"},
    {P::node_gates, "node", "gates", "dhecs", "source: before it tells the rank"},
    {P::node_closes, "node", "closes", "dhcs", "source: the rank's server has dropped it"},
    {P::node_exports, "node", "exports", "dhecs", "source: the rank is quiet"},
    {P::node_holds, "node", "holds", "dhecs", "target: its wrapper holds the rank"},
    {P::node_leaves, "node", "leaves", "dhcs", "source: the move is decided"},
    {P::node_joins, "node", "joins", "dhecs", "target: the move is decided"},
    {P::node_goes, "node", "goes", "dhcs", "target: before it tells its wrapper to go"},
    {P::node_returns, "node", "returns", "dhcs", "source: the move is called off"},
    {P::node_snap_prepares, "node", "snap-prepares", "dhecs", "before it tells a wrapper"},
    {P::node_snap_freezes, "node", "snap-freezes", "dhecs", "a rank is quiet"},
    {P::node_snap_writes, "node", "snap-writes", "dhecs", "the ranks are back"},
    {P::node_snap_ends, "node", "snap-ends", "dhs", "the snapshot is complete"},
    {P::node_restart_imports, "node", "restart-imports", "dhecs", "all ghosts are looked at"},
    {P::wrapper_connects, "wrapper", "connects", "dhecs", "source: connected to the target"},
    {P::wrapper_exports, "wrapper", "exports", "dhecs", "source: before the rank is frozen"},
    {P::wrapper_exported, "wrapper", "exported", "dhes", "source: all is sent"},
    {P::wrapper_leaves, "wrapper", "leaves", "dhs", "source: told to end the rank"},
    {P::wrapper_resumes, "wrapper", "resumes", "dhs", "source: told that the rank stays"},
    {P::wrapper_prepares, "wrapper", "prepares", "dhes", "target: started"},
    {P::wrapper_imports, "wrapper", "imports", "dhecs", "target: the source is connected"},
    {P::wrapper_holds, "wrapper", "holds", "dhes", "target: the rank is made and stopped"},
    {P::wrapper_goes, "wrapper", "goes", "dhs", "target: before it lets the rank run"},
    {P::wrapper_snap_prepares, "wrapper", "snap-prepares", "dhes", "before its file is made"},
    {P::wrapper_snap_freezes, "wrapper", "snap-freezes", "dhes", "told to freeze the rank"},
    {P::wrapper_snap_captured, "wrapper", "snap-captured", "dhs", "the rank runs again"},
    {P::wrapper_snap_written, "wrapper", "snap-written", "dhes", "its file is written"},
    {P::init_exported, "init", "exported", "dhs", "source: all is sent, it is stopped"},
    {P::init_held, "init", "held", "dhs", "target: made and stopped"},
    {P::init_goes, "init", "goes", "dhs", "target: it runs"},
    {P::init_snap_captured, "init", "snap-captured", "dhs", "it runs again"},
    {P::agent_gates, "agent", "gates", "dhecs", "before it closes its gates"},
    {P::agent_closes, "agent", "closes", "dhs", "before it closes its links"},
    {P::agent_wakes, "agent", "wakes", "dhes", "the signal to wake has come"},
    {P::agent_attaches, "agent", "attaches", "dhecs", "its links are up"},
    {P::criu_dumps, "criu", "dumps", "dhcs", "the rank is stopped"},
    {P::criu_dumped, "criu", "dumped", "dhcs", "the skeleton is complete"},
    {P::criu_restores, "criu", "restores", "dhcs", "started"},
    {P::pages_sent_first, "pages", "sent-first", "dhecs", "before the first pages"},
    {P::pages_sent_last, "pages", "sent-last", "dhecs", "before the ghost's end"},
    {P::pages_received_first, "pages", "received-first", "dhecs", "the first pages"},
    {P::pages_received_last, "pages", "received-last", "dhecs", "the ghost's end"},
    {P::pages_sent_round, "pages", "sent-round", "dhecs", "live: a round"},
    {P::pages_received_round, "pages", "received-round", "dhecs", "live: a round"},
}};
static_assert(in_order(rows));

// What the file of this point on this node says; it is taken away, with the victim's number in it.
// Empty: there is none.
std::string take(const std::string& title, pid_t victim) {
    auto folder = open_own_folder(detail::folder());
    if (!folder) return {};
    const std::string name = title + "@" + host_name();
    if (::renameat(folder->get(), name.c_str(), folder->get(), (name + struck).c_str()) != 0)
        return {};
    const Fd file(::openat(folder->get(), (name + struck).c_str(),
                           O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW));
    char text[64];
    const ssize_t got = file ? ::read(file.get(), text, sizeof text) : -1;
    if (got > 0) ::dprintf(file.get(), "%d\n", victim);
    return got > 0 ? std::string(text, static_cast<size_t>(got)) : std::string();
}

std::optional<Kind> kind_named(std::string_view name) {
    const auto found = std::ranges::find(kind_names, name);
    if (found == kind_names.end()) return std::nullopt;
    return static_cast<Kind>(found - kind_names.begin());
}

void sleep_for(std::string_view ms) {
    int64_t length = slow_ms;
    std::from_chars(ms.data(), ms.data() + ms.size(), length);
    ::usleep(static_cast<useconds_t>(length * 1000));
}

}  // namespace

const std::array<PointRow, static_cast<size_t>(P::pages_received_round) + 1> points = rows;

bool PointRow::has(Kind kind) const {
    return std::strchr(kinds, kind_names[static_cast<size_t>(kind)][0]) != nullptr;
}

std::string PointRow::title() const {
    return std::string(party) + ":" + name;
}

namespace detail {

const char* folder() {
    static const char* const place = [] {
        const char* named = ::secure_getenv("GHOST_FAULTS");
        return named != nullptr && *named != '\0' ? ::strdup(named) : nullptr;
    }();
    return place;
}

Status strike(Point point, pid_t process, const std::function<void()>& cut) {
    const PointRow& row = rows[static_cast<size_t>(point)];
    const pid_t victim = process > 0 ? process : ::getpid();
    const std::string said = take(row.title(), victim);
    const std::string_view name = std::string_view(said).substr(0, said.find_first_of(" \n"));
    const auto kind = kind_named(name);
    if (!kind) return {};
    log::info("fault point {}: {}", row.title(), name);
    switch (*kind) {
        case Kind::die:
            ::kill(victim, SIGKILL);
            return {};
        case Kind::hang:
            ::kill(victim, SIGSTOP);
            return {};
        case Kind::cut:
            if (cut) cut();
            return {};
        case Kind::slow:
            sleep_for(std::string_view(said).substr(std::min(said.size(), name.size() + 1)));
            return {};
        case Kind::error:
            break;
    }
    return make_error(Code::io, "pass a fault point", row.title(), "a test has planted a fault");
}

}  // namespace detail
}  // namespace ghost::fault
