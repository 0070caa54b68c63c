// SPDX-License-Identifier: BSD-3-Clause
// The parameters of Ghost a user can set (mpirun --mca ghost_... , OMPI_MCA_ghost_...): one table,
// registered with Open MPI by the schizo component and printed by `ghost params`.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace ghost::plugin {

struct Parameter {
    const char* name;      // as after --mca
    const char* fallback;  // default, as text
    const char* meaning;
};

// In the order they are listed.
std::span<const Parameter> parameters();
// The default of one of them, as text; "" if there is no such parameter.
const char* default_of(std::string_view name);

// Where mpirun finds the snapshot's folder a job is restarted from: the parameter ghost_restart,
// which only `ghost restart` sets. Its --keep-longer sets the other: the suffix of the copies.
inline constexpr const char* restart_variable = "OMPI_MCA_ghost_restart";
inline constexpr const char* restart_keep_variable = "OMPI_MCA_ghost_restart_keep";
inline constexpr const char* restart_signer_variable = "OMPI_MCA_ghost_restart_signer";
inline constexpr const char* filters_variable = "OMPI_MCA_ghost_filters";
inline constexpr const char* streams_variable = "OMPI_MCA_ghost_streams";
inline constexpr const char* own_ipc_variable = "OMPI_MCA_ghost_own_ipc";

// Values as a user writes them. invalid, with the text, if it is none.
Result<int64_t> parse_duration_us(const std::string& text);  // "90", "90s", "10m", "2h", "1d"
Result<uint64_t> parse_bytes(const std::string& text);       // "1000000", "200M", "1G" (of 1024)
// What a job recovers from by itself (ghost_recover).
struct Recover {
    bool ranks = false;
    bool nodes = false;
    bool any() const { return ranks || nodes; }
};
Result<Recover> parse_recover(const std::string& text);
// A parameter as it is set; a wrong value is the default (the coordinator says what is wrong).
template <typename View>
Recover recovers_from(const View& job) {
    constexpr const char* name = "ghost_recover";
    const auto from = parse_recover(job.parameter(name).value_or(default_of(name)));
    return from ? *from : Recover();
}
template <typename View>
bool recovers(const View& job) {
    return recovers_from(job).any();
}
// nothing: "auto".
Result<std::optional<int64_t>> parse_dead_after(const std::string& text);
// As recovers_from(). By itself a second where a lost node costs the job no more than what it has
// computed since its snapshot.
template <typename View>
int64_t dead_after_us(const View& job) {
    constexpr const char* name = "ghost_node_dead_after";
    constexpr int64_t recovers_us = 1'000'000, ends_us = 10'000'000;
    const auto set = parse_dead_after(job.parameter(name).value_or(default_of(name)));
    if (set && *set) return **set;
    return recovers_from(job).nodes ? recovers_us : ends_us;
}
Result<int> parse_count(const std::string& text);
// Whether a snapshot is to go where parity is made over groups of nodes: "xor:…".
bool goes_to_xor(const std::string& to);
// Of "xor:4" the 4: nodes of a group, 2 to 64.
Result<uint32_t> parse_xor(const std::string& to);
// "URG", "SIGURG" or "23" as the number; "none" and "0" as 0.
Result<int> parse_signal(const std::string& text);

}  // namespace ghost::plugin
