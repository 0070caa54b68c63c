// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/clients.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/log.hpp"

namespace ghost::plugin {
namespace {

Json row_of(const Move& m) {
    Json row = {{"rank", m.rank},
                {"from", m.from_name},
                {"to", m.to_name},
                {"mode", m.mode},
                {"bytes", m.bytes},
                {"rounds", m.rounds},
                {"downtime_us", m.downtime},
                {"total_us", m.lasted},
                {"epoch", m.epoch},
                {"moved", m.moved}};
    if (!m.not_live.empty()) row["not_live"] = m.not_live;
    if (!m.moved && !m.why.empty()) row["why"] = m.why;
    if (m.memory) row["memory"] = *m.memory;
    return row;
}

// Names of nodes and folders may be no UTF-8.
std::string json_text(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Clients::Clients(EventLoop& loop, Services services)
    : loop_(loop), services_(std::move(services)), entrance_(loop) {}

Status Clients::listen(const std::string& path) {
    // The folder is this job's own: what is there is of a coordinator that died.
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());
    auto listener = ControlListener::listen(path);
    GHOST_TRY(listener);
    entrance_.open(
        std::move(*listener),
        [this](ClientId id, ControlSocket socket) { came(id, std::move(socket)); },
        [this](ClientId id) { out(id); });
    return {};
}

void Clients::came(ClientId id, ControlSocket socket) {
    auto connection = ControlConnection::open(
        loop_, std::move(socket), [this, id](ControlMessage& m) { packet(id, m.text); },
        [this, id] { closed(id); });
    clients_.insert({id, {connection, {to_coordinator, "the ghost command"}}});
    connection->read_now();  // who spoke at once is done with at once
}

void Clients::out(ClientId id) {
    if (auto client = clients_.extract(id)) client.mapped().connection->close();
}

void Clients::closed(ClientId id) {
    entrance_.leave(id);
    clients_.erase(id);
    services_.gone(id);
}

void Clients::refuse(ClientId id, const std::string& why) {
    tell(id, RequestResult{1, {"[]"}, why});
}

void Clients::packet(ClientId id, std::string_view text) {
    auto client = clients_.find(id);
    if (client == clients_.end()) return;
    std::string answer;
    const auto m = client->second.reader.read(text, answer);
    if (!answer.empty()) client->second.connection->send_text(std::move(answer));
    if (!m) return;
    entrance_.leave(id);
    message(id, *m);
}

void Clients::message(ClientId id, const schema::Received& m) {
    switch (m.type<ToCoordinator>()) {
        case ToCoordinator::ps:
            return services_.ps([this, id](const Json& all) {
                tell(id, RequestResult{0, {json_text(all)}, std::nullopt});
            });
        case ToCoordinator::migrate:
            return migrate(id, m.as<MigrateRequest>());
        case ToCoordinator::checkpoint:
            return checkpoint(id, m.as<CheckpointRequest>());
        case ToCoordinator::cancel:
            return cancel(id, m.as<CancelRequest>());
        case ToCoordinator::drain:
            return drain(id, m.as<DrainRequest>());
        case ToCoordinator::grow:
            return grow(id, m.as<GrowRequest>());
    }
}

void Clients::migrate(ClientId id, const MigrateRequest& m) {
    const std::string all_from = m.all_from.value_or("");
    if (m.ranks.empty() == all_from.empty())
        return refuse(id, "a migration names at least one rank, or a node whose ranks are meant");
    MigrationOrder order;
    order.ranks = m.ranks;
    order.all_from = all_from;
    if (!m.to.empty()) order.to = {m.to};
    order.mode = m.mode.value_or("");
    order.with_sharers = m.with_sharers.value_or(false);
    services_.migrate(
        id, std::move(order), [this, id](const Move& move) { progress(id, move); },
        [this, id](const MigrationResult& result) { migrated(id, result); });
}

void Clients::drain(ClientId id, const DrainRequest& m) {
    DrainOrder order;
    order.node = m.node;
    order.to = m.to;
    order.mode = m.mode.value_or("");
    services_.drain(
        id, std::move(order), [this, id](const Move& move) { progress(id, move); },
        [this, id](const DrainResult& result) {
            Json out = {{"moves", Json::array()},
                        {"stay", Json::array()},
                        {"drained", result.drained},
                        {"left", result.left}};
            for (const Move& move : result.moved.moves) out["moves"].push_back(row_of(move));
            for (const auto& one : result.stay)
                out["stay"].push_back({{"rank", one.rank}, {"why", one.why}});
            if (!result.note.empty()) out["note"] = result.note;
            RequestResult answer{result.exit, {json_text(out)}, std::nullopt};
            if (!result.error.empty()) answer.error = result.error;
            tell(id, answer);
        });
}

void Clients::grow(ClientId id, const GrowRequest& m) {
    GrowOrder order;
    order.node = m.node;
    order.slots = m.slots;
    services_.grow(
        id, std::move(order),
        [this, id](const Grow& grow) {
            tell(id, RequestProgress{std::nullopt, grow_states.name(grow.state), 0, 0});
        },
        [this, id](const Grow& grow) {
            const bool joined = grow.state == GrowState::done;
            const Json out = {{"node", joined ? grow.node.name : grow.order.node},
                              {"slots", joined ? grow.node.slots : grow.order.slots},
                              {"joined", joined},
                              {"again", grow.again},
                              {"total_us", grow.lasted}};
            RequestResult answer{joined ? 0 : 1, {json_text(out)}, std::nullopt};
            if (!joined)
                answer.error = fmt::format("node {} has not joined the job, which is unharmed: {}",
                                           grow.order.node, grow.why);
            tell(id, answer);
        });
}

void Clients::cancel(ClientId id, const CancelRequest& m) {
    services_.cancel(m.id.value_or(0), [this, id, wanted = m.id](const auto& all) {
        Json rows = Json::array();
        for (const Engine::Undone& one : all)
            rows.push_back({{"id", one.id}, {"what", one.what}, {"undone", one.undone}});
        const bool undone = std::ranges::all_of(all, &Engine::Undone::undone);
        RequestResult m{undone ? 0 : 1, {json_text(rows)}, std::nullopt};
        if (!undone) m.error = "what has been decided already was not undone";
        if (all.empty() && wanted) {
            m.exit = 1;
            m.error = fmt::format("nothing that is under way or waits has the number {}", *wanted);
        }
        tell(id, m);
    });
}

void Clients::checkpoint(ClientId id, const CheckpointRequest& m) {
    SnapshotOrder order;
    order.then = then_names[static_cast<size_t>(m.then)];
    order.to = m.to;
    order.sign = m.sign;
    order.asked_by = "ghost checkpoint";
    auto progress = [this, id](const SnapshotRun& run) {
        tell(id,
             RequestProgress{std::nullopt, snapshot_states.name(run.state), run.bytes, run.total});
    };
    auto finished = [this, id](const SnapshotRun& run) {
        const int exit = run.state == SnapshotState::done ? 0 : run.harmed ? 3 : 1;
        RequestResult answer{exit, {json_text(result_of(run))}, std::nullopt};
        if (exit != 0) answer.error = run.why;
        tell(id, answer);
    };
    services_.snapshot(id, order, progress, finished);
}

void Clients::progress(ClientId id, const Move& move) {
    tell(id, RequestProgress{move.rank, move_states.name(move.state), move.bytes, move.total});
}

void Clients::migrated(ClientId id, const MigrationResult& result) {
    Json rows = Json::array();
    for (const Move& move : result.moves) rows.push_back(row_of(move));
    RequestResult m{result.exit, {json_text(rows)}, std::nullopt};
    if (!result.error.empty()) m.error = result.error;
    // What was refused concerns who asked; what was harmed everybody.
    if (m.error && result.exit == 3) log::warning("{}", *m.error);
    if (m.error && result.exit != 3) log::info("{}", *m.error);
    tell(id, m);
}

void Clients::stop() {
    for (auto& [id, client] : clients_) client.connection->close();
    clients_.clear();
    entrance_.close();
}

}  // namespace ghost::plugin
