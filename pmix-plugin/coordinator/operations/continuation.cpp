// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/continuation.hpp"

#include <utility>

#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

namespace ghost::plugin {

using S = ContinuationState;

namespace {

constexpr int most_tries = 4;

}  // namespace

ContinueOperation::ContinueOperation(Job& job, uint64_t stopped_by)
    : StagedOperation(job, nullptr, nullptr) {
    data_.stopped_by = stopped_by;
}

void ContinueOperation::begin() {
    data_.started = job_.settings.now();
    take_number();
    if (change(S::going)) tell();
}

// Ranks come back the same way when a snapshot is called off.
void ContinueOperation::tell() {
    order_step(job_.adapter, job_.liveness, DaemonMessage::snap_abort, seq(), ++data_.attempt);
}

void ContinueOperation::expired() {
    log::warning("not every node has said that its ranks go on: they are told again");
    if (data_.attempt == most_tries) {
        job_.snapshots.remind(seq(), data_.attempt);
        return finish();
    }
    tell();
    wait_on();
}

void ContinueOperation::finish() {
    job_.fences.release(data_.stopped_by);
    conclude(S::done);
    hand_over();
}

void ContinueOperation::message(NodeId, const schema::Received& m) {
    if (!m.is<StepUp>() || data_.state != S::going) return;
    const StepUp& up = m.as<StepUp>();
    if (up.step != ParticipantStep::aborted || up.attempt != data_.attempt) return;
    job_.publish(up.answer.locations);
    if (up.answer.failed_ranks > 0)
        log::error("not every rank came back: {}",
                   plugin::describe(up.answer.failed, up.answer.failed_ranks));
    finish();
}

Request continue_request(Job& job, uint64_t stopped_by) {
    Request request;
    request.scope = {true, {}, true};
    request.next = [&job, stopped_by, begun = false]() mutable -> Operations {
        if (std::exchange(begun, true)) return {};
        return one_operation(std::make_unique<ContinueOperation>(job, stopped_by));
    };
    return request;
}

}  // namespace ghost::plugin
