// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/daemons.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <netinet/in.h>
#include <sstream>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/proc.hpp"
#include "base/tcp.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"

namespace ghost::plugin::orte41 {

namespace {

std::string command_line(pid_t pid) {
    auto read = read_file("/proc/" + std::to_string(pid) + "/cmdline");
    std::string line = read ? std::move(*read) : std::string();  // it may have ended
    for (char& c : line)
        if (c == '\0' || c == '"') c = ' ';
    std::string single;  // the numbers are quoted for the remote shell
    for (char c : line)
        if (c != ' ' || single.empty() || single.back() != ' ') single += c;
    return single + " ";
}

// The ports at which mpirun hears daemons (a daemon's environment names them, too):
// "N.0;tcp://ADDRESS,ADDRESS:PORT;tcp6://[…]:PORT".
std::set<int> mpirun_ports() {
    const char* uri = orte_process_info.my_hnp_uri;
    std::istringstream parts(uri != nullptr ? uri : "");
    std::set<int> out;
    for (std::string part; std::getline(parts, part, ';');)
        if (const size_t colon = part.rfind(':'); part.starts_with("tcp") && colon != part.npos)
            out.insert(std::atoi(part.c_str() + colon + 1));
    return out;
}

using NameOf = int (*)(int fd, sockaddr* at, socklen_t* size);

// Of one end (getsockname(), getpeername()); 0: it is no connection over TCP.
int port_of(int fd, NameOf name_of, sockaddr_storage& at) {
    socklen_t size = sizeof at;
    if (name_of(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0) return 0;
    if (at.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in*>(&at)->sin_port);
    if (at.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6*>(&at)->sin6_port);
    return 0;
}

int port_of(int fd, NameOf name_of) {
    sockaddr_storage at{};
    return port_of(fd, name_of, at);
}

bool ranks_alive_here() {
    for (int i = 0; i < orte_local_children->size; ++i) {
        const auto* child = item<orte_proc_t>(orte_local_children, i);
        if (child && ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_ALIVE)) return true;
    }
    return false;
}

}  // namespace

// The ssh (or the like) that mpirun keeps for that daemon, found by the numbers ORTE gave it
// (orte/mca/ess/env: ess_base_jobid, ess_base_vpid). Only children of this process are looked at.
void Daemons::end_launcher(NodeId node) {
    const std::string job = " ess_base_jobid " + std::to_string(ORTE_PROC_MY_NAME->jobid) + " ";
    const std::string daemon = " ess_base_vpid " + std::to_string(node) + " ";
    const std::string self = std::to_string(getpid());
    std::ifstream children("/proc/" + self + "/task/" + self + "/children");
    for (pid_t pid = 0; children >> pid;) {
        const std::string line = command_line(pid);
        if (line.find(job) == std::string::npos || line.find(daemon) == std::string::npos) continue;
        log::debug("ending process {}, the launcher of daemon {}", pid, node);
        kill(pid, SIGKILL);
    }
}

// While the job runs and nothing of it has failed, a status can only be there because of the daemon
// (plm/rsh notes its launcher's end).
void Daemons::keep_exit_status() const {
    const orte_job_t* job = app_job();
    if (job && job->state < ORTE_JOB_STATE_UNTERMINATED &&
        !ORTE_FLAG_TEST(job, ORTE_JOB_FLAG_ABORTED) && !orte_abnormal_term_ordered)
        orte_exit_status = 0;
}

bool Daemons::failed(NodeId node) {
    if (!ORTE_PROC_IS_HNP) return false;
    if (given_up_.contains(node)) {
        keep_exit_status();
        has_ended(node);
        return true;
    }
    // At the end of the job daemons go away as they should.
    if (orte_orteds_term_ordered || orte_abnormal_term_ordered || orte_finalizing) return false;
    if (!ask_ || !ask_(node)) return false;
    give_up(node);
    return true;
}

void Daemons::give_up(NodeId node) {
    if (!take_out(node)) return;
    end_launcher(node);
    keep_exit_status();
    // mpirun may be waiting for this very daemon to end.
    if (orte_orteds_term_ordered && !ranks_alive_here() &&
        orte_routed.num_routes(orte_rml.get_routed(orte_mgmt_conduit)) == 0)
        ORTE_ACTIVATE_JOB_STATE(nullptr, ORTE_JOB_STATE_DAEMONS_TERMINATED);
}

void Daemons::dismiss(NodeId node, std::function<void()> gone) {
    dismissed_[node] = std::move(gone);
    take_out(node);
}

// Its connection is closed: what is left of its launcher here waits for nothing.
void Daemons::has_ended(NodeId node) {
    auto one = dismissed_.extract(node);
    if (!one) return;
    end_launcher(node);
    one.mapped()();
}

void Daemons::end_cut_connections(int64_t dead_after_us) {
    const auto ports = mpirun_ports();
    std::set<int> now;
    for (const int fd : numbers_in("/proc/self/fd"))
        if (ports.contains(port_of(fd, ::getsockname)) && is_unanswered(fd, dead_after_us))
            now.insert(fd);
    for (const int fd : now) {
        if (!unanswered_.contains(fd)) continue;
        log::info("a daemon's node has answered nothing for {} s: its connection is ended",
                  dead_after_us / 1'000'000);
        ::shutdown(fd, SHUT_RDWR);
    }
    unanswered_ = std::move(now);
}

bool Daemons::lease_is_over(int64_t dead_after_us) {
    const auto ports = mpirun_ports();
    const auto fds = numbers_in("/proc/self/fd");
    const bool cut = std::ranges::any_of(fds, [&](int fd) {
        return ports.contains(port_of(fd, ::getpeername)) && is_unanswered(fd, dead_after_us);
    });
    return std::exchange(cut_off_, cut) && cut;
}

std::optional<sockaddr_storage> Daemons::mpirun_address() {
    const auto ports = mpirun_ports();
    for (const int fd : numbers_in("/proc/self/fd")) {
        sockaddr_storage at{};
        if (ports.contains(port_of(fd, ::getpeername, at))) return at;
    }
    return std::nullopt;
}

void Daemons::keep_out() const {
    for (const NodeId node : given_up_) lose_route(node);
}

bool Daemons::take_out(NodeId node) {
    orte_proc_t* daemon = daemon_object(node);
    if (!ORTE_PROC_IS_HNP || !daemon || node == ORTE_PROC_MY_NAME->vpid) return false;
    if (!given_up_.insert(node).second) return false;
    count_as_lost(*daemon);
    if (daemon->node) daemon->node->state = ORTE_NODE_STATE_DOWN;
    return true;
}

}  // namespace ghost::plugin::orte41
