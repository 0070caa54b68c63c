// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/settings/parameters.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <strings.h>

namespace ghost::plugin {

namespace {

constexpr const char* xor_to = "xor:";

constexpr Parameter table[] = {
    {"ghost", "0", "Run the job so that its ranks can move and be saved (0 or 1)"},
    {"ghost_checkpoint_interval", "0",
     "Seconds (or 10m, 2h) between snapshots of the job; 0 takes none; auto: as what they cost and "
     "ghost_mtbf ask for"},
    {"ghost_mtbf", "auto",
     "Mean time between failures of the whole job (or 12h, 3d), for ghost_checkpoint_interval "
     "auto; "
     "auto: a year divided by the number of nodes"},
    {"ghost_checkpoint_dir", "./ghost-snapshots",
     "Folder for snapshots, shared by all nodes or local to each"},
    {"ghost_checkpoint_keep", "2", "How many complete snapshots are kept"},
    {"ghost_checkpoint_to", "disk",
     "Where snapshots go: disk, memory (of the node each rank is on), both, partner (memory, and a "
     "copy in that of another node), or xor:N (memory, and parity over groups of N nodes)"},
    {"ghost_checkpoint_copy_rate", "200M",
     "partner, xor:N: bytes per second that each node sends to others (or 1G); 0 is unlimited"},
    {"ghost_checkpoint_disk_every", "0",
     "memory, partner, xor:N: each so many-th snapshot goes to the folder too; 0: none"},
    {"ghost_checkpoint_rate", "0",
     "Bytes per second that each rank may write (or 200M, 1G); 0 is unlimited"},
    {"ghost_checkpoint_files", "64K",
     "Files open for writing are carried in snapshots up to this size (or 2M; at most 32M)"},
    {"ghost_checkpoint_signal", "URG",
     "Signal to mpirun that requests a snapshot (name or number; none)"},
    {"ghost_checkpoint_sign", "none",
     "File with a secret key of `ghost key`, on mpirun's node: snapshots are signed with it"},
    {"ghost_full_every", "10", "Take a full snapshot after this many incremental ones; 0 is never"},
    {"ghost_incremental", "1", "Write only pages that changed since the last snapshot (0 or 1)"},
    {"ghost_compress", "lz4", "Compression of snapshots: none, lz4 or zstd"},
    {"ghost_recover", "none",
     "After the loss of a rank, a node, or either (rank, node, all) the job goes on from its last "
     "snapshot under the same mpirun; none: it ends"},
    {"ghost_recover_max", "10", "How often it does at most"},
    {"ghost_migrate_mode", "auto",
     "How ranks move unless `ghost migrate --mode` says it: live, stop, or auto, which is live "
     "where that can be and is quicker"},
    {"ghost_migrate_live_from", "16M",
     "auto: ranks with less memory of their own (or 512K, 1G) move by stop; 0: none"},
    {"ghost_migrate_at_once", "auto",
     "How many ranks may move at the same time; auto: at each node as many as it has cores, 8 at "
     "most"},
    {"ghost_spares", "0",
     "How many nodes of the host list, from its end, get no ranks: targets for those that move"},
    {"ghost_node_dead_after", "auto",
     "Seconds after which a node with ranks that answers nothing over the network is lost; 0 waits "
     "as long as the kernel does; auto: 1 if the job goes on after that (ghost_recover), else 10"},
    {"ghost_filters", "none",
     "Filters for messages between ranks: crypto, compress, backup=FOLDER, so:/PATH"},
    {"ghost_streams", "1", "Offer streams to programs that use kernet.h, without kernetd (0 or 1)"},
    {"ghost_own_ipc", "0",
     "Give each rank System V memory, semaphores and queues of its own, which go along (0 or 1)"},
    {"ghost_events", "auto",
     "Folder of jobs' event logs; auto: ghost in $XDG_STATE_HOME or ~/.local/state; none keeps "
     "none"},
    {"ghost_verbose", "1",
     "What Ghost reports: 0 errors, 1 warnings, 2 events, 3 steps, 4 every detail"},
};

}  // namespace

namespace {

struct Unit {
    char letter;
    double factor;
};

constexpr Unit time_units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
constexpr Unit byte_units[] = {{'B', 1},
                               {'K', 1024.0},
                               {'M', 1024.0 * 1024},
                               {'G', 1024.0 * 1024 * 1024},
                               {'T', 1024.0 * 1024 * 1024 * 1024}};

// A number that is not negative with at most one unit's letter behind it.
Result<double> with_unit(const std::string& text, std::span<const Unit> units, const char* what) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const Error wrong = make_error(Code::invalid, std::string("understand ") + what, text);
    if (end == text.c_str() || !std::isfinite(value) || value < 0) return wrong;
    double factor = 1;
    if (*end != '\0') {
        bool known = false;
        for (const Unit& unit : units) {
            if (strncasecmp(&unit.letter, end, 1) != 0) continue;
            factor = unit.factor;
            known = true;
        }
        if (!known || end[1] != '\0') return wrong;
    }
    if (value * factor > 1e15) return wrong;
    return value * factor;
}

}  // namespace

std::span<const Parameter> parameters() {
    return table;
}

const char* default_of(std::string_view name) {
    for (const Parameter& known : table)
        if (known.name == name) return known.fallback;
    return "";
}

Result<int64_t> parse_duration_us(const std::string& text) {
    auto seconds = with_unit(text, time_units, "the time");
    if (!seconds) return seconds.error();
    if (*seconds > 1e9) return make_error(Code::invalid, "understand the time", text);
    return std::llround(*seconds * 1e6);
}

Result<uint64_t> parse_bytes(const std::string& text) {
    auto bytes = with_unit(text, byte_units, "the amount of bytes");
    if (!bytes) return bytes.error();
    return static_cast<uint64_t>(std::llround(*bytes));
}

Result<Recover> parse_recover(const std::string& text) {
    if (text == "none") return Recover{};
    if (text == "rank") return Recover{true, false};
    if (text == "node") return Recover{false, true};
    if (text == "all") return Recover{true, true};
    return make_error(Code::invalid, "understand what to recover from", text,
                      "it is none of none, rank, node, all");
}

Result<std::optional<int64_t>> parse_dead_after(const std::string& text) {
    if (text == "auto") return std::optional<int64_t>();
    const auto us = parse_duration_us(text);
    GHOST_TRY(us);
    return std::optional<int64_t>(*us);
}

Result<int> parse_count(const std::string& text) {
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != 0 || value < 0 || value > INT_MAX)
        return make_error(Code::invalid, "understand the number", text);
    return static_cast<int>(value);
}

bool goes_to_xor(const std::string& to) {
    return to.starts_with(xor_to);
}

Result<uint32_t> parse_xor(const std::string& to) {
    constexpr int fewest = 2, most = 64;
    const auto nodes = parse_count(to.substr(std::min(to.size(), std::strlen(xor_to))));
    if (goes_to_xor(to) && nodes && *nodes >= fewest && *nodes <= most)
        return static_cast<uint32_t>(*nodes);
    return make_error(Code::invalid, "make parity for", to, "xor:N has groups of 2 to 64 nodes");
}

Result<int> parse_signal(const std::string& text) {
    if (strcasecmp(text.c_str(), "none") == 0) return 0;
    const char* name = strncasecmp(text.c_str(), "SIG", 3) == 0 ? text.c_str() + 3 : text.c_str();
    for (int signum = 1; signum < NSIG; ++signum) {
        const char* known = sigabbrev_np(signum);
        if (known != nullptr && strcasecmp(known, name) == 0) return signum;
    }
    char* end = nullptr;
    const long number = std::strtol(text.c_str(), &end, 10);
    if (!text.empty() && *end == '\0' && number >= 0 && number < NSIG)
        return static_cast<int>(number);
    return make_error(Code::invalid, "understand the signal", text);
}

}  // namespace ghost::plugin
