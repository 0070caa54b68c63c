// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/signals.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/orte_headers.hpp"

namespace ghost::plugin::orte41 {

struct Signals::Taken {
    explicit Taken(std::function<void()> what) : handler(std::move(what)) {}
    ~Taken() { opal_event_free(event); }  // takes it off the base first
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

    static void fired(int, short, void* data) noexcept {
        try {
            static_cast<Taken*>(data)->handler();
        } catch (const std::exception& failure) {
            log::error("signal handler failed: {}", failure.what());
        }
    }

    std::function<void()> handler;
    opal_event_t* event = opal_event_alloc();
};

namespace {

// mpirun ends by the first four, needs the next two to live, and the last cannot be caught.
constexpr int reserved[] = {SIGINT, SIGTERM, SIGHUP, SIGSEGV, SIGCHLD, SIGPIPE, SIGKILL, SIGSTOP};

bool swallowed[NSIG];
orte_plm_base_module_signal_job_fn_t stock_signal_job = nullptr;

// What mpirun's own signal handler calls; a signal that somebody asked for by other ways names the
// job.
int signal_job(orte_jobid_t job, int32_t signum) noexcept {
    if (job == ORTE_JOBID_WILDCARD && signum > 0 && signum < NSIG && swallowed[signum])
        return ORTE_SUCCESS;
    return stock_signal_job(job, signum);
}

}  // namespace

Signals::Signals() = default;

Signals::~Signals() {
    std::fill(std::begin(swallowed), std::end(swallowed), false);
    if (orte_plm.signal_job == signal_job) orte_plm.signal_job = stock_signal_job;
}

Status Signals::take(int signum, std::function<void()> handler) {
    if (signum <= 0 || signum >= NSIG ||
        std::find(std::begin(reserved), std::end(reserved), signum) != std::end(reserved))
        return make_error(Code::refused, "take over the signal", std::to_string(signum),
                          "mpirun needs it");
    auto taken = std::make_unique<Taken>(std::move(handler));
    opal_event_signal_set(orte_event_base, taken->event, signum, Taken::fired, taken.get());
    if (opal_event_signal_add(taken->event, nullptr) != 0)
        return make_error(Code::io, "watch for the signal", std::to_string(signum));
    taken_[signum] = std::move(taken);
    swallowed[signum] = signum != SIGCONT;
    if (orte_plm.signal_job != signal_job) {
        stock_signal_job = orte_plm.signal_job;
        orte_plm.signal_job = signal_job;
    }
    return {};
}

}  // namespace ghost::plugin::orte41
