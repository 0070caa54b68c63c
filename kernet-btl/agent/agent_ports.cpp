// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/agent/agent_ports.hpp"

#include <dlfcn.h>
#include <unistd.h>
#include <utility>

#include "kernet-btl/agent/agent.hpp"
#include "kernet-btl/agent/agent_pmix.h"
#include "kernet-btl/include/ghost_mpi.h"
#include "kernet-btl/transport/endpoint.hpp"

namespace kernet {
namespace {

class EndpointPort final : public DataPort {
  public:
    explicit EndpointPort(Endpoint& endpoint) : endpoint_(endpoint) {}
    ~EndpointPort() override { endpoint_.on_unknown_location = nullptr; }

    Location location() const override { return endpoint_.location(); }
    int service_fd() const override { return endpoint_.service_fd(); }
    void service() override { endpoint_.service(); }
    void close_gate() override { endpoint_.close_gate(); }
    void open_gate() override { endpoint_.open_gate(); }
    bool stays() const override { return endpoint_.stays(); }
    void suspend_all() override { endpoint_.suspend_all(); }
    Status begin_life(const std::string& life) override { return endpoint_.begin_life(life); }
    Status wakeup_all(int node, const std::string& node_name, uint64_t epoch,
                      const std::vector<Location>& peers) override {
        return endpoint_.wakeup_all(node, node_name, epoch, peers);
    }
    void set_location(const Location& location) override { endpoint_.set_location(location); }
    void on_unknown_location(std::function<void(uint32_t)> handler) override {
        endpoint_.on_unknown_location = std::move(handler);
    }

  private:
    Endpoint& endpoint_;
};

class PmixClientPort final : public PmixPort {
  public:
    explicit PmixClientPort(int limit_ms) : limit_ms_(limit_ms) {}

    Status supported() override {
        kernet_pmix_why why{};
        if (kernet_pmix_supported(&why) == KERNET_PMIX_OK) return {};
        return ghost::make_error(ghost::Code::unsupported, "use the PMIx client", {}, why.text);
    }
    Result<uint32_t> gate() override {
        kernet_pmix_why why{};
        uint32_t tag = 0;
        Status status = to_status(kernet_pmix_gate(&tag, limit_ms_, &why), why, "gate");
        if (!status) return status.error();
        return tag;
    }
    Status ungate() override {
        kernet_pmix_why why{};
        return to_status(kernet_pmix_ungate(limit_ms_, &why), why, "ungate");
    }
    Status close() override {
        kernet_pmix_why why{};
        return to_status(kernet_pmix_close(limit_ms_, &why), why, "close");
    }
    Status attach(const std::string& uri, bool resend,
                  const std::function<void()>& meanwhile) override;
    Status recommit() override {
        kernet_pmix_why why{};
        return to_status(kernet_pmix_recommit(limit_ms_, &why), why, "re-commit");
    }
    void forked() override { kernet_pmix_forked(); }

  private:
    static Status to_status(int rc, const kernet_pmix_why& why, const char* what) {
        if (rc == KERNET_PMIX_OK) return {};
        ghost::Code code = ghost::Code::internal;
        if (rc == KERNET_PMIX_BUSY) code = ghost::Code::busy;
        if (rc == KERNET_PMIX_TIMEOUT) code = ghost::Code::timeout;
        return ghost::make_error(code, std::string("do PMIx's ") + what, {}, why.text);
    }

    int limit_ms_;
};

Status PmixClientPort::attach(const std::string& uri, bool resend,
                              const std::function<void()>& meanwhile) {
    constexpr int64_t step_us = 500;
    kernet_pmix_why why{};
    kernet_pmix_op* op = kernet_pmix_attach_begin(uri.c_str(), resend, &why);
    if (op == nullptr) return to_status(KERNET_PMIX_FAILED, why, "attach");
    for (int64_t waited = 0;; waited += step_us) {
        bool last = waited >= int64_t{limit_ms_} * 1000;
        int rc = kernet_pmix_attach_wait(op, step_us, last, &why);
        if (rc != KERNET_PMIX_BUSY) return to_status(rc, why, "attach");
        meanwhile();
    }
}

// libghost_mpi, if the program has it: as soon as it has, and wherever it was loaded from.
class LinkedProgram final : public ProgramPort {
  public:
    bool begin_stop() override {
        if (stops_ == nullptr) stops_ = find();
        return stops_ == nullptr || stops_->begin() == 0;
    }
    void before_stop() override {
        if (stops_ != nullptr) stops_->before();
    }
    void after_stop(bool elsewhere) override {
        if (stops_ != nullptr) stops_->after(elsewhere ? 1 : 0);
    }
    void end_stop() override {
        if (stops_ != nullptr) stops_->end();
    }

  private:
    // Not closed: it stays as long as the agent may call it.
    static const struct ghost_mpi_stops* find() {
        void* library = ::dlopen("libghost_mpi.so.1", RTLD_LAZY | RTLD_NOLOAD);
        void* found = library != nullptr ? ::dlsym(library, "ghost_mpi_stops") : nullptr;
        if (found == nullptr) return nullptr;
        const auto* stops = reinterpret_cast<decltype(&::ghost_mpi_stops)>(found)();
        return stops->size >= sizeof(struct ghost_mpi_stops) ? stops : nullptr;
    }
    const struct ghost_mpi_stops* stops_ = nullptr;
};

}  // namespace

AgentPorts real_ports(Endpoint& endpoint, int pmix_limit_ms) {
    AgentPorts ports;
    ports.data = std::make_unique<EndpointPort>(endpoint);
    ports.pmix = std::make_unique<PmixClientPort>(pmix_limit_ms);
    ports.program = std::make_unique<LinkedProgram>();
    // _exit: the application's handlers must not run on this thread, in a process whose MPI is
    // dead.
    ports.give_up = [](int status) { ::_exit(status); };
    return ports;
}

Result<std::unique_ptr<RankAgent>> RankAgent::start(Endpoint& endpoint, const AgentConfig& config) {
    return start(real_ports(endpoint, config.pmix_limit_ms), config);
}

}  // namespace kernet
