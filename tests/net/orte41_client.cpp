// SPDX-License-Identifier: BSD-3-Clause
// In place of coordinator and node agent: moves the bookkeeping of a rank from daemon to daemon
// with the adapter, as a move does, and starts a stand-in where a move would restore the rank.
//
// Orders come through files in the folder $OMPI_MCA_ghost_test: mpirun reads order.N (N from 0),
// one JSON object each, and answers in done.N: {"op":"move","rank","to","argv"},
// {"op":"abandon","rank","to"} (a move that ends right before the switch), {"op":"lost","node"},
// {"op":"facts"}, {"op":"signal","signum"}, {"op":"end","status","why"}. Each such signal and each
// request by job control is a line of the file heard there.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>

#include "base/log.hpp"
#include "base/schema_json.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/runtime/orte41/adapter.hpp"
#include "pmix-plugin/shells/plugin.hpp"
#include "tests/json_packet.hpp"

namespace {

using namespace ghost;
using namespace ghost::plugin;

class Client {
  public:
    Client() {
        adapter_.on_message([this](NodeId from, const schema::Received& m) {
            if (!m.is<Failed>()) return;
            const Json words = Json::parse(m.as<Failed>().why, nullptr, false);
            if (words.is_object()) message(from, words);
        });
        adapter_.on_node_lost([](NodeId) { return true; });
        if (!adapter_.is_coordinator()) return;
        adapter_.on_job_control([this](RuntimeAdapter::JobControl request) {
            heard("control " + request.order.then);
            request.answer(request.order.then == "continue" ? "this is a test" : "");
        });
        read_order();
    }

  private:
    // The test's own words: nobody else in these daemons takes a `failed`.
    static Failed carried(const Json& words) { return {0, 0, Stage::check, words.dump()}; }

    // mpirun
    std::string file(const char* kind) const {
        return fmt::format("{}/{}.{}", getenv("OMPI_MCA_ghost_test"), kind, next_);
    }

    void read_order() {
        std::ifstream in(file("order"));
        const Json order = in ? Json::parse(in, nullptr, false) : Json();
        if (!order.is_object()) {
            adapter_.after(10'000, [this] { read_order(); });
            return;
        }
        const std::string op = order.at("op");
        if (op == "lost") {
            adapter_.give_up_node(order.at("node"));
            answer({{"ok", true}});
        } else if (op == "facts") {
            answer({{"ok", true}, {"facts", schema::to_json(adapter_.describe_job())}});
        } else if (op == "signal") {
            const int signum = order.at("signum");
            const Status taken = adapter_.on_signal(
                signum, [this, signum] { heard(fmt::format("signal {}", signum)); });
            answer({{"ok", taken.ok()}});
        } else if (op == "end") {
            answer({{"ok", true}});
            adapter_.end_job(order.at("status"), order.at("why"));
        } else if (op == "abandon") {
            order_ = order;
            ask(order.at("to"), "abandon");
        } else {
            order_ = order;
            hold();
        }
    }

    static void heard(const std::string& what) {
        std::ofstream(fmt::format("{}/heard", getenv("OMPI_MCA_ghost_test")), std::ios::app)
            << what << std::endl;
    }

    void answer(const Json& result) {
        const std::string path = file("done");
        std::ofstream(path + ".new") << result.dump();
        std::rename((path + ".new").c_str(), path.c_str());
        ++next_;
        read_order();
    }

    void hold() {
        if (!adapter_.hold_fences()) {
            adapter_.after(1'000, [this] { hold(); });
            return;
        }
        for (const RankInfo& rank : adapter_.ranks())
            if (rank.rank == order_.at("rank")) order_["from"] = rank.node;
        ask(order_.at("from"), "detach_from_server");
    }

    void ask(NodeId node, const char* what) {
        Json m = order_;
        m["t"] = what;
        adapter_.tell(node, carried(m));
    }

    void switched(const Json& m) {
        votes_ += m.at("votes").get<int>();
        if (m.contains("error")) order_["error"] = m.at("error");
        if (++answers_ < live_nodes()) return;
        adapter_.settle_fences(votes_);
        ask(order_.at("to"), "go");
        answer({{"ok", !order_.contains("error")}, {"votes", votes_}, {"order", order_}});
        answers_ = 0;
        votes_ = 0;
    }

    size_t live_nodes() const {
        size_t count = 0;
        for (const NodeInfo& node : adapter_.nodes()) count += node.alive;
        return count;
    }

    // every daemon
    void message(NodeId from, const Json& m) {
        const std::string t = m.value("t", "");
        if (t == "detach_from_server") detach_from_server(m);
        if (t == "premarked") ask(order_.at("to"), "spawn");
        if (t == "spawn") spawn(from, m);
        if (t == "spawned") {
            Json all = order_;
            all["t"] = "switch";
            adapter_.tell_all(carried(all));
        }
        if (t == "abandon") abandon(from, m);
        if (t == "abandoned") answer({{"ok", m.at("ok")}});
        if (t == "switch") do_switch(m);
        if (t == "switched") switched(m);
        if (t == "go")
            if (!send_json(control_, {{"t", "go"}})) log::error("no go");
    }

    void detach_from_server(const Json& m) {
        const PreMark may = adapter_.may_detach(m.at("rank"), 0);
        const PreMark is = adapter_.detach_from_server(m.at("rank"), 0);
        if (may != is) log::error("may_detach and detach_from_server differ");
        if (is == PreMark::busy) {
            adapter_.after(5'000, [this, m] { detach_from_server(m); });
            return;
        }
        adapter_.tell(0, carried({{"t", "premarked"}}));
    }

    void spawn(NodeId from, const Json& m) {
        std::vector<std::string> argv = {"/usr/bin/env", "PMIX_NAMESPACE=" + adapter_.job_name(),
                                         fmt::format("PMIX_RANK={}", m.at("rank").get<int>()),
                                         "PMIX_SERVER_URI41=" + adapter_.pmix_uri()};
        for (const auto& word : m.at("argv")) argv.push_back(word);
        auto spawned = adapter_.spawn_restore(m.at("rank"), argv, [](int) {});
        if (!spawned) log::error("{}", spawned.error().message());
        if (spawned) control_ = std::move(spawned->control);
        adapter_.expect_client(m.at("rank"));
        adapter_.tell(from, carried({{"t", "spawned"}}));
    }

    void abandon(NodeId from, const Json& m) {
        const RankId rank = m.at("rank");
        const auto spawned = adapter_.spawn_restore(rank, {"/bin/sleep", "1000"}, [](int) {});
        adapter_.expect_client(rank);
        adapter_.after(100'000, [this, from, rank, ok = spawned.ok()] {
            adapter_.discard_restore(rank);
            adapter_.tell(from, carried({{"t", "abandoned"}, {"ok", ok}}));
        });
    }

    void do_switch(const Json& m) {
        const RankId rank = m.at("rank");
        pid_t pid = 0;
        for (const RankInfo& info : adapter_.ranks())
            if (info.rank == rank) pid = info.pid;
        const auto votes = adapter_.switch_rank(rank, m.at("from"), m.at("to"));
        Json result = {{"t", "switched"}, {"votes", votes ? *votes : 0}};
        if (!votes) result["error"] = votes.error().message();
        if (adapter_.self() != m.at("from")) {
            adapter_.tell(0, carried(result));
            return;
        }
        kill(-pid, SIGKILL);
        drain(rank, result);
    }

    void drain(RankId rank, const Json& result) {
        if (adapter_.output_pending(rank)) {
            adapter_.after(1'000, [this, rank, result] { drain(rank, result); });
            return;
        }
        adapter_.close_output(rank);
        adapter_.tell(0, carried(result));
    }

    orte41::Orte4Adapter adapter_;
    Json order_;
    ControlSocket control_;
    size_t answers_ = 0;
    int votes_ = 0;
    int next_ = 0;
};

std::unique_ptr<Client>& client() {
    static std::unique_ptr<Client> the_client;
    return the_client;
}

}  // namespace

int ghost_plugin_wanted(void) noexcept {
    return getenv("OMPI_MCA_ghost_test") != nullptr;
}
void ghost_plugin_refuse(const char*, const char*, const char*) noexcept {}
void ghost_plugin_start(void) noexcept {
    orte41::complete_own_name();
    orte41::post_to_orte([] { client() = std::make_unique<Client>(); });
}
void ghost_plugin_stop(void) noexcept {
    client().reset();
}
