// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/leave.hpp"

#include <fmt/format.h>
#include <utility>

namespace ghost::plugin {

using S = LeaveState;

LeaveOperation::LeaveOperation(Job& job, NodeId node, Finished finished)
    : StagedOperation(job, nullptr, std::move(finished)) {
    data_.node = node;
    data_.name = job.liveness.name_of(node);
}

std::string LeaveOperation::describe() const {
    return fmt::format("the daemon of node {}", data_.name);
}

// The fences wait for nobody: no operation is under way, and none owes anything.
std::optional<std::string> LeaveOperation::check() const {
    if (auto why = refusal(job_)) return why;
    if (!job_.adapter.job_running()) return why_no_job(job_);
    if (job_.liveness.hosts_ranks(data_.node)) return "ranks are there";
    if (job_.adapter.relayed())
        return "mpirun reaches some nodes of this job through others, perhaps through this one";
    const size_t guests = job_.adapter.guests_at(data_.node);
    if (guests > 0)
        return fmt::format("{} processes that the job has spawned (MPI_Comm_spawn) are there",
                           guests);
    return std::nullopt;
}

void LeaveOperation::begin() {
    data_.started = job_.settings.now();
    take_number();
    if (!job_.liveness.alive(data_.node)) return finish(S::failed, "it has left the job already");
    if (auto why = check()) return finish(S::failed, *why);
    if (change(S::asking)) job_.adapter.tell(data_.node, AskLeave{seq()});
}

void LeaveOperation::message(NodeId from, const schema::Received& m) {
    if (!m.is<Leaving>() || from != data_.node || data_.state != S::asking) return;
    const auto& why = m.as<Leaving>().why;
    why ? finish(S::failed, *why) : dismiss();
}

// It hosts nothing and says nothing any more.
void LeaveOperation::dismiss() {
    if (!change(S::leaving)) return;
    job_.liveness.dismiss(data_.node);
    std::weak_ptr<bool> alive = alive_;
    job_.adapter.dismiss_node(data_.node, [this, alive] {
        if (alive.lock()) gone();
    });
    job_.adapter.tell_all(NodeLost{data_.node});
    job_.fences.node_lost(data_.node);
}

void LeaveOperation::gone() {
    if (data_.state == S::leaving) finish(S::done);
}

void LeaveOperation::node_lost(NodeId node) {
    if (node == data_.node && data_.state == S::asking) finish(S::done);
}

void LeaveOperation::expired() {
    if (data_.state == S::asking) return finish(S::failed, "its daemon does not answer");
    data_.ended = false;
    finish(S::done);
}

void LeaveOperation::finish(S state, const std::string& why) {
    data_.why = why;
    conclude(state);
    hand_over();
}

void LeaveOperation::stop(const std::string& why) {
    data_.why = why;
    hand_over();
}

Request leave_request(Job& job, uint64_t id, NodeId node, LeaveOperation::Finished finished) {
    Request request;
    request.id = id;
    request.what = fmt::format("node {} leaves the job", job.liveness.name_of(node));
    request.scope = {true, {}, true};
    auto begun = std::make_shared<bool>(false);
    request.refuse = [finished, begun](const std::string& why) {
        Leave leave;
        leave.state = S::failed;
        leave.why = why;
        if (!*begun) finished(leave);
    };
    request.begun = [] { return true; };  // of a drain
    request.next = [&job, node, finished, begun]() -> Operations {
        if (std::exchange(*begun, true)) return {};
        return one_operation(std::make_unique<LeaveOperation>(job, node, finished));
    };
    return request;
}

}  // namespace ghost::plugin
