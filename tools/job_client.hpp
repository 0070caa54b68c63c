// SPDX-License-Identifier: BSD-3-Clause
// The `ghost` command's side of a job's coordinator (docs/PROTOCOL.md, "T → C"). Every running
// mpirun with Ghost on has a socket in its session folder, readable by its user only.
// One thread; nothing is kept between calls.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/json_member.hpp"
#include "base/result.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"

namespace ghost::tools {

// A job that answered: its connection and what it said to `ps`.
struct Job {
    ControlSocket socket;
    std::string path;
    Json info;  // "job", "pid", "running", "epoch", "nodes", "ranks", …

    pid_t pid() const { return member(info, "pid", 0); }
    std::string name() const { return member(info, "job", std::string()); }
};

// Coordinators' sockets of this user on this machine: <tmpdir>/ompi.*.<uid>/pid.*/ghost.sock for
// $TMPDIR and /tmp, or for OMPI_MCA_orte_tmpdir_base alone if that is set. Some may be of jobs that
// have died.
std::vector<std::string> coordinator_sockets();

// All jobs that answer within the time; those that do not are named in `silent` if given.
std::vector<Job> running_jobs(int timeout_ms, std::vector<std::string>* silent = nullptr);

// The job that is meant by mpirun's pid or the job's name; the only one if `wanted` is empty.
// not_found: no such job or none at all; peer_lost: it has ended, as plugin::job_has_ended says;
// invalid: several run and none was named; busy: it, or none, answers.
Result<Job> choose_job(const std::string& wanted);

// The same, where another process may be meant as well; none: nothing says that it is a job. Where
// a job does not answer, it is meant by what is no process either.
Result<std::optional<Job>> find_job(const std::string& wanted);

// What became of a request.
struct Answer {
    int exit = 1;
    Json result;        // as the coordinator gave it; null if it gave none
    std::string error;  // what to tell the user; empty if done
};

using OnProgress = std::function<void(const plugin::RequestProgress&)>;

// Sends the request and waits for its result as long as mpirun answers at all (10 s), and is not
// stopped (a second). A coordinator that vanishes is an Answer too: exit 3 with what is known if
// mpirun is gone and the request had begun, for one that ends in order has said so; else 1.
Answer ask(const Job& job, const plugin::MigrateRequest& request, const OnProgress& progress);
Answer ask(const Job& job, const plugin::CheckpointRequest& request, const OnProgress& progress);
Answer ask(const Job& job, const plugin::DrainRequest& request, const OnProgress& progress);
Answer ask(const Job& job, const plugin::GrowRequest& request, const OnProgress& progress);
Answer ask(const Job& job, const plugin::CancelRequest& request);

}  // namespace ghost::tools
