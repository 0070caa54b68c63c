// SPDX-License-Identifier: BSD-3-Clause
// A virtual cluster of its own for a test program, and jobs on it.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/json.hpp"
#include "tests/net/process.hpp"

namespace nettest {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

// The `ghost` program of the build: $GHOST, else tools/ghost below the working directory.
std::string ghost_program();

// Why no lab can be made here; empty if one can.
std::string why_no_lab();

// Commands on nodes run as the user of this machine that it names; not set: root.
inline constexpr const char* user_variable = "GHOST_TEST_USER";
bool of_a_user();

// Moves go by the mode that it names, and no rank counts as small; not set: by the default.
inline constexpr const char* mode_variable = "GHOST_TEST_MODE";
// `ghost migrate` and these options, by that mode if they name none.
Words migrate_words(const Words& options);

class Lab {
  public:
    explicit Lab(int nodes);
    ~Lab();  // takes it down
    Lab(const Lab&) = delete;
    Lab& operator=(const Lab&) = delete;

    // Repairs what the last test broke: heals links, starts dead nodes, takes limits off.
    void repair();
    void cut(const std::string& node);
    void switch_off(const std::string& node);
    void shape(const std::string& node, const std::string& rate);

    Finished on(const std::string& node, const Words& command, double seconds = 60);
    // As Background's constructor.
    Background start_on(const std::string& node, const Words& command,
                        const std::string& input = "", bool more = false);
    // What only root may do to a node, whoever the commands run as.
    Finished as_root(const std::string& node, const Words& command, double seconds = 60);
    Background start_as_root(const std::string& node, const Words& command);

    // Process ids (as seen on the node) of processes whose command line matches the regular
    // expression; not of those whose parent does (they were forked from it).
    std::vector<int> pids(const std::string& node, const std::string& pattern);
    void kill(const std::string& node, int pid);
    // Bytes its network interfaces have received.
    uint64_t received(const std::string& node);

  private:
    Finished verb(const Words& words);
    Words exec(const std::string& node, const std::string& user, const Words& command) const;
    void guard();

    std::string name_;
    int nodes_;
    ghost::Fd alive_;  // the guard has its other end
    pid_t guard_ = -1;
};

// `ghost migrate`.
struct Move {
    int status = -1;
    Json result;  // the object it printed; null if none
    std::string err;
};

// One mpirun with ghost on, started on gn1.
class Job {
  public:
    // hosts as mpirun's --host; program and its options.
    Job(Lab& lab, int ranks, const std::string& hosts, const Words& program,
        const std::string& input = "", bool more = false);
    // Of what another command starts on gn1: ghost restart.
    Job(Lab& lab, const Words& command);

    Background& mpirun() { return mpirun_; }
    // Waits until standard output contains the text (this many times).
    bool wait_for(const std::string& text, size_t count = 1, double seconds = 60);
    // Waits for so many more lines with the text than there are now.
    bool wait_for_more(const std::string& text, size_t count = 1, double seconds = 60);
    bool wait_for_error(const std::string& text, double seconds);

    Move migrate(int rank, const std::string& node, double seconds = 60);
    Move migrate_with_sharers(int rank, const std::string& node);
    Background start_migrate(int rank, const std::string& node, const Words& options = {});
    // Node name of a rank as `ghost ps` says; "" if it does not.
    std::string node_of(int rank);
    Finished finish(double seconds = 60) { return mpirun_.finish(seconds); }

  private:
    Lab& lab_;
    Background mpirun_;
};

Move move_of(const Finished& finished);
size_t count_of(const std::string& text, const std::string& part);
// Of a file; "" if there is none.
std::string contents(const std::string& file);
// Of what tests/mpi/talk has written: lines of one stream, numbered from 0, whole, in order.
// "complete", or the first fault.
std::string check_talk(const std::string& text, const std::string& stream);

}  // namespace nettest
