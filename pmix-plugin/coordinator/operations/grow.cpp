// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/grow.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace ghost::plugin {

using S = GrowState;

namespace {

// It becomes a word of what starts the daemon there (ssh), which takes options, too.
bool is_host_name(const std::string& name) {
    const auto fits = [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
    };
    return !name.empty() && name[0] != '-' && name.size() < 256 && std::ranges::all_of(name, fits);
}

}  // namespace

GrowOperation::GrowOperation(Job& job, GrowOrder order, Progress progress, Finished finished)
    : StagedOperation(job, std::move(progress), std::move(finished)) {
    data_.order = std::move(order);
}

std::string GrowOperation::describe() const {
    return fmt::format("node {} that joins", data_.order.node);
}

std::optional<std::string> GrowOperation::check() const {
    if (!is_host_name(data_.order.node))
        return fmt::format("{} is no name of a node", data_.order.node);
    if (auto why = refusal(job_)) return why;
    if (!job_.adapter.job_running()) return why_no_job(job_);
    return std::nullopt;
}

bool GrowOperation::is_there() {
    const auto node = job_.adapter.find_node(data_.order.node);
    if (!node || !job_.liveness.alive(*node)) return false;
    data_.node = {*node, 0, job_.liveness.name_of(*node), job_.adapter.slots(*node)};
    data_.again = job_.drained.erase(*node) > 0;
    data_.again
        ? finish(S::done)
        : finish(S::failed, fmt::format("node {} is part of the job already", data_.node.name));
    return true;
}

void GrowOperation::begin() {
    data_.started = job_.settings.now();
    take_number();
    if (auto why = check()) return finish(S::failed, *why);
    if (!is_there()) start();
}

void GrowOperation::start() {
    if (!change(S::starting)) return;
    std::weak_ptr<bool> alive = alive_;
    auto started = job_.adapter.start_daemon(data_.order.node, data_.order.slots,
                                             [this, alive](const Status& status) {
                                                 if (alive.lock()) runs(status);
                                             });
    if (!started) return finish(S::failed, started.error().message());
    data_.node = *started;
}

void GrowOperation::runs(const Status& status) {
    if (data_.state != S::starting) return;
    if (!status.ok())
        return finish(S::failed,
                      fmt::format("{}: can you log in there without a password, and is Open MPI "
                                  "installed? What was said there is in mpirun's output",
                                  status.error().message()));
    if (!change(S::joining)) return;
    if (job_.adapter.relayed())
        return fail(
            "mpirun would reach it through another node, and then no rank could move: start the "
            "job with --mca routed_radix N, N at least the number of nodes");
    tell_all();
}

void GrowOperation::tell_all() {
    const auto live = job_.liveness.live_nodes();
    missing_ = {live.begin(), live.end()};
    const NewNode& node = data_.node;
    job_.adapter.tell_all(NodeJoins{seq(), node.id, node.place, node.name, node.slots});
}

void GrowOperation::message(NodeId from, const schema::Received& m) {
    if (!m.is<Joined>() || data_.state != S::joining) return;
    const auto& why = m.as<Joined>().why;
    why ? fail(fmt::format("node {}: {}", job_.liveness.name_of(from), *why)) : answered(from);
}

void GrowOperation::answered(NodeId daemon) {
    if (missing_.erase(daemon) == 0 || !missing_.empty()) return;
    job_.tell_locations(data_.node.id);
    finish(S::done);
}

void GrowOperation::node_lost(NodeId node) {
    if (data_.state != S::joining) return;
    node == data_.node.id ? finish(S::failed, "its daemon died while it joined") : answered(node);
}

void GrowOperation::expired() {
    if (data_.state == S::starting)
        return fail(
            fmt::format("its daemon has not come up within {} s: does the node answer, and "
                        "can you log in there without a password?",
                        job_.settings.start_us / 1'000'000));
    if (missing_.contains(data_.node.id))
        return fail("its daemon does not answer: is the same version of Ghost installed there?");
    fail(fmt::format("node {} does not answer", job_.liveness.name_of(*missing_.begin())));
}

// Its daemon is no part of the job, as far as it has become one.
void GrowOperation::leave_out() {
    const NodeId node = data_.node.id;
    if (data_.state == S::joining) job_.liveness.dismiss(node);
    job_.adapter.give_up_start(node);
    if (data_.state == S::joining) job_.adapter.tell_all(NodeLost{node});
}

void GrowOperation::fail(const std::string& why) {
    leave_out();
    finish(S::failed, why);
}

bool GrowOperation::undo(const std::string& why) {
    if (data_.state != S::starting && data_.state != S::joining) return false;
    fail(why);
    return true;
}

void GrowOperation::finish(S state, const std::string& why) {
    data_.why = why;
    conclude(state);
    hand_over();
}

void GrowOperation::stop(const std::string& why) {
    data_.why = why;
    hand_over();
}

Request grow_request(Job& job, uint64_t owner, GrowOrder order, GrowOperation::Progress progress,
                     GrowOperation::Finished finished) {
    Request request;
    request.id = order.id;
    request.owner = owner;
    request.what = fmt::format("node {} joins the job", order.node);
    request.scope = {true, {}, true};
    auto begun = std::make_shared<bool>(false);
    request.refuse = [finished, begun, order](const std::string& why) {
        Grow grow;
        grow.state = S::failed;
        grow.order = order;
        grow.why = why;
        if (!*begun) finished(grow);
    };
    request.next = [&job, order, progress = std::move(progress), finished,
                    begun]() mutable -> Operations {
        if (std::exchange(*begun, true)) return {};
        return one_operation(std::make_unique<GrowOperation>(job, order, progress, finished));
    };
    return request;
}

}  // namespace ghost::plugin
