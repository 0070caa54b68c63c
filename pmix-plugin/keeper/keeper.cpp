// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/keeper/keeper.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "base/pidfd.hpp"
#include "base/proc.hpp"
#include "base/tcp.hpp"

namespace ghost::plugin {
namespace {

constexpr int patience_ms = 100;  // for wrappers to end with their daemon, ranks and all

bool is_stopped(pid_t pid) {
    const auto fields = stat_fields(pid);
    return !fields.empty() && (fields[0] == "T" || fields[0] == "t");
}

socklen_t size_of(const sockaddr_storage& at) {
    return at.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

}  // namespace

bool Lease::is_over() {
    if (answers()) {
        was_answered_ = true;
        unanswered_ = 0;
    } else if (was_answered_) {
        ++unanswered_;
    }
    // Of a connection that stands the kernel has counted the time; two looks have to agree.
    return unanswered_ >= (connected_ ? 2 : looks_);
}

// Whatever comes back is an answer: a refusal, a reset.
bool Lease::answers() {
    if (!connected_) return connects();
    const char beat = 0;
    const bool sent = ::send(connection_.get(), &beat, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
    if (sent || errno == EAGAIN) return !is_unanswered(connection_.get(), limit_us_);
    connection_.reset();
    connected_ = false;
    return errno != ETIMEDOUT && errno != EHOSTUNREACH && errno != ENETUNREACH;
}

// Asked again while it is under way, connect() says how it is (connect(2)).
bool Lease::connects() {
    if (!connection_.valid())
        connection_.reset(
            ::socket(mpirun_.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto* at = reinterpret_cast<const sockaddr*>(&mpirun_);
    connected_ = ::connect(connection_.get(), at, size_of(mpirun_)) == 0 || errno == EISCONN;
    if (connected_ || errno == EINPROGRESS || errno == EALREADY) return connected_;
    const int error = errno;
    connection_.reset();
    return error == ECONNREFUSED || error == ECONNRESET;
}

Keeper::Keeper(pid_t daemon, const sockaddr_storage& mpirun, int64_t limit_us)
    : daemon_(daemon),
      limit_us_(limit_us),
      pidfd_(open_pidfd(daemon)),
      lease_(mpirun, limit_us, looks) {}

Status Keeper::run() {
    if (!pidfd_.valid()) return sys_error("watch daemon", std::to_string(daemon_));
    const auto ended = loop_.on_readable(pidfd_.get(), [this] { loop_.stop(); });
    const auto looking = loop_.every(limit_us_ / looks, [this] { look(); });
    return loop_.run();
}

void Keeper::look() {
    stopped_ = is_stopped(daemon_) ? stopped_ + 1 : 0;
    if (lease_.is_over()) return end_daemon("mpirun's node has answered nothing");
    if (stopped_ >= looks) end_daemon("this node's daemon has been stopped");
}

// Wrappers end their ranks when the daemon has ended; one that cannot is killed, and its guard ends
// the rank (ghost-core/supervisor/guard.hpp).
void Keeper::end_daemon(const char* why) {
    std::vector<Fd> children;
    for (const pid_t child : children_of(daemon_)) children.push_back(open_pidfd(child));
    log::error("{} for {:.1f} s: this node's ranks end, for the job goes on without it", why,
               static_cast<double>(limit_us_) / 1e6);
    (void)signal_pidfd(pidfd_.get(), SIGKILL);
    for (const Fd& child : children)
        if (child.valid() && !await_pidfd(child.get(), patience_ms))
            (void)signal_pidfd(child.get(), SIGKILL);
    loop_.stop();
}

}  // namespace ghost::plugin
