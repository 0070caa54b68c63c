// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/control_requests.hpp"

#include "base/log.hpp"
#include "pmix-plugin/protocol/client_coordinator.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/pmix/job_control.h"
#include "pmix-plugin/runtime/orte41/loop.hpp"

namespace ghost::plugin::orte41 {

namespace {

constexpr NodeId mpirun = 0;

// What PMIx's thread posts to ORTE's may arrive when we are gone.
ControlRequests*& present() {
    static ControlRequests* the_requests = nullptr;
    return the_requests;
}

ControlAct act_of(int act) {
    switch (act) {
        case GHOST_CONTROL_MIGRATE:
            return ControlAct::migrate;
        case GHOST_CONTROL_DRAIN:
            return ControlAct::drain;
        default:
            return ControlAct::checkpoint;
    }
}

}  // namespace

ControlRequests::ControlRequests(RmlMessenger& messenger) : messenger_(messenger) {
    present() = this;
    messenger_.add_handler([this](NodeId from, const schema::Received& m) { message(from, m); });
    ghost_pmix_on_job_control(from_pmix, nullptr);
}

ControlRequests::~ControlRequests() {
    ghost_pmix_on_job_control(nullptr, nullptr);
    present() = nullptr;
}

void ControlRequests::on_request(std::function<void(RuntimeAdapter::JobControl)> handler) {
    handler_ = std::move(handler);
}

void ControlRequests::from_pmix(void*, const ghost_job_control* asked, void* request) noexcept {
    ControlOrder order{act_of(asked->act), asked->then, {}, asked->node, asked->mode};
    order.ranks.assign(asked->ranks, asked->ranks + asked->count);
    post_to_orte([space = std::string(asked->space), rank = asked->rank,
                  of = std::string(asked->of), order = std::move(order), request]() mutable {
        if (!present()) return ghost_pmix_answer_job_control(request, 1);
        const bool from_rank = space == app_name();
        // Itself, if it names nobody.
        if (from_rank && order.act == ControlAct::migrate && order.ranks.empty())
            order.ranks = {rank};
        present()->heard(from_rank, of, std::move(order), request);
    });
}

void ControlRequests::heard(bool from_rank, const std::string& of, ControlOrder order,
                            void* request) {
    if (!of.empty() && of != app_name()) {
        log::warning("PMIx_Job_control, {}: {} is not this job, which is {}", name_of(order.act),
                     of, app_name());
        return ghost_pmix_answer_job_control(request, 1);
    }
    if (ORTE_PROC_IS_HNP) {
        take(from_rank, order, [request](const std::string& why) {
            ghost_pmix_answer_job_control(request, why.empty() ? 0 : 1);
        });
        return;
    }
    open_[++last_] = request;
    messenger_.tell(mpirun, JobControlAsked{last_, from_rank, std::move(order)});
}

void ControlRequests::message(NodeId from, const schema::Received& m) {
    if (m.is<JobControlAsked>() && ORTE_PROC_IS_HNP) {
        const auto& asked = m.as<JobControlAsked>();
        take(asked.rank, asked.order, [this, from, id = asked.id](const std::string& why) {
            messenger_.tell(from, JobControlDone{id, why});
        });
    } else if (m.is<JobControlDone>() && from == mpirun) {
        const auto found = open_.find(m.as<JobControlDone>().id);
        if (found == open_.end()) return;
        ghost_pmix_answer_job_control(found->second, m.as<JobControlDone>().why.empty() ? 0 : 1);
        open_.erase(found);
    }
}

void ControlRequests::take(bool from_rank, const ControlOrder& order, Answer answer) {
    log::debug("{} is asked for by a {}", name_of(order.act), from_rank ? "rank" : "tool");
    if (!handler_) return answer("this job takes no requests");
    if (!from_rank) return handler_({order, std::move(answer)});
    answer("");
    handler_({order, [](const std::string&) {}});
}

}  // namespace ghost::plugin::orte41
