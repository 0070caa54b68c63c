// SPDX-License-Identifier: BSD-3-Clause
// `ghost supervise`: what became of a job, by its event log, and where it goes on. Decisions on
// what was read; nothing is run.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "pmix-plugin/events/event.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::tools {

// One mpirun's time, from its log.
struct JobLife {
    std::string job;               // its name; empty: no rank has run
    std::string host;              // mpirun's node
    std::string folder, snapshot;  // the newest one, or what it went on from; empty: none
    bool saved = false;            // that was made in this life
    std::set<std::string> lost;    // nodes
    // Why it did not end as the program does; empty: it did, or its mpirun was ended by somebody.
    std::string loss;
    bool ended = false;  // mpirun has said so, and with which status
    int64_t status = 0;
};

JobLife read_life(const std::vector<plugin::Event>& events);

// mpirun's options for a restart on the nodes that are left of those the job had. refused: none
// are. More ranks than slots are told by `crowded`.
struct Places {
    std::vector<std::string> options;
    bool crowded = false;
};
Result<Places> places_without(const plugin::Manifest& manifest, const std::set<std::string>& lost);

// The parameter's value that these words of mpirun's give it (--mca NAME VALUE); nothing: none.
std::optional<std::string> parameter_in(const std::vector<std::string>& words,
                                        const std::string& name);

// What a supervisor leaves for one that is started after it was lost with its node.
struct Supervision {
    std::vector<std::string> words;  // the command
    std::string folder;              // in which it was started
    std::string host;                // of mpirun
    int64_t pid = 0;                 // mpirun's
    std::string began;               // that one, as in the name of its log (events/files.hpp)
    bool asked = false;              // somebody has ended it: it may go on later
    static const schema::Record table;
};
// Name of its file among the event logs: the same for the same command in the same folder.
std::string supervision_file(const std::vector<std::string>& words, const std::string& folder);

}  // namespace ghost::tools
