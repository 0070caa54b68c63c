// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/clients.hpp"

#include <sys/stat.h>

#include "base/log.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_clients = 64;

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
    return row;
}

// Names of nodes and folders may be no UTF-8.
std::string json_text(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Clients::Clients(RuntimeAdapter& adapter, Queue& queue, Mover& mover, Services services)
    : adapter_(adapter), queue_(queue), mover_(mover), services_(std::move(services)) {}

Status Clients::listen(const std::string& path) {
    // The folder is this job's own: what is there is of a coordinator that died.
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());
    auto listener = ControlListener::listen(path);
    GHOST_TRY(listener);
    listener_ = std::move(*listener);
    watch_ = adapter_.watch(listener_.fd(), [this] { accept(); });
    return {};
}

void Clients::accept() {
    auto socket = listener_.accept();
    if (!socket.ok()) {
        if (socket.error().code != Code::busy) log::warning("{}", socket.error().message());
        return;
    }
    if (clients_.size() >= most_clients) return;
    ClientId id = ++last_id_;
    auto connection = ControlConnection::open(
        adapter_, std::move(*socket), [this, id](ControlMessage& m) { packet(id, m.text); },
        [this, id] { closed(id); });
    clients_.insert({id, {std::move(connection), {to_coordinator, "the ghost command"}}});
}

void Clients::closed(ClientId id) {
    clients_.erase(id);
    queue_.drop(id);
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
    if (m) message(id, *m);
}

void Clients::message(ClientId id, const schema::Received& m) {
    switch (m.type<ToCoordinator>()) {
        case ToCoordinator::ps:
            return tell(id, RequestResult{0, {json_text(services_.ps())}, std::nullopt});
        case ToCoordinator::migrate:
            return migrate(id, m.as<MigrateRequest>());
        case ToCoordinator::checkpoint:
            return checkpoint(id, m.as<CheckpointRequest>());
    }
}

void Clients::migrate(ClientId id, const MigrateRequest& m) {
    auto request = std::make_shared<Request>();
    request->client = id;
    request->ranks = m.ranks;
    request->to = m.to;
    request->mode = m.mode.value_or("");
    if (request->ranks.empty() || request->to.empty()) {
        return refuse(id, "a migration names at least one rank and a node");
    }
    Operation move;
    move.owner = id;
    move.begin = [this, request] {
        begun_ = request;
        next(request);
    };
    move.refuse = [this, request](const std::string& why) {
        request->exit = 1;
        request->error = why + ": nothing more is moved";
        answer(*request);
    };
    if (!queue_.add(std::move(move))) refuse(id, "too many moves wait already");
}

void Clients::checkpoint(ClientId id, const CheckpointRequest& m) {
    SnapshotOrder order;
    order.then = then_names[static_cast<size_t>(m.then)];
    order.to = m.to;
    order.asked_by = "ghost checkpoint";
    auto progress = [this, id](const SnapshotRun& run) {
        tell(id, RequestProgress{std::nullopt, name(run.state), run.bytes, run.total});
    };
    auto finished = [this, id](const SnapshotRun& run) {
        const int exit = run.state == SnapshotState::done ? 0 : run.harmed ? 3 : 1;
        RequestResult answer{exit, {json_text(result_of(run))}, std::nullopt};
        if (exit != 0) answer.error = run.why;
        tell(id, answer);
    };
    services_.snapshot(id, order, progress, finished);
}

void Clients::next(const std::shared_ptr<Request>& request) {
    MoveOrder order{request->ranks[request->next], request->to, request->mode};
    mover_.begin(
        order, [this, id = request->client](const Move& move) { progress(id, move); },
        [this, request](const Move& move) { finished(request, move); });
}

void Clients::progress(ClientId id, const Move& move) {
    tell(id, RequestProgress{move.rank, name(move.state), move.bytes, move.total});
}

// The first rank that does not move ends the request: what the user meant by the rest may no longer
// hold, and nothing is lost by asking again.
void Clients::finished(const std::shared_ptr<Request>& request, const Move& move) {
    services_.moved(move);
    request->rows.push_back(row_of(move));
    ++request->next;
    if (!move.why.empty() && move.state != MoveState::done) {
        request->exit = move.harmed ? 3 : 1;
        request->error = move.why;
        size_t left = request->ranks.size() - request->next;
        if (left > 0) request->error += fmt::format(" ({} more ranks were not tried)", left);
    }
    if (request->exit != 0 || request->next == request->ranks.size()) {
        begun_.reset();
        answer(*request);
        return queue_.done();
    }
    // Not from here: the mover is still inside the end of this move.
    soon_ = adapter_.after(0, [this, request] {
        soon_.reset();
        next(request);
    });
}

void Clients::answer(const Request& request) {
    RequestResult m{request.exit, {json_text(request.rows)}, std::nullopt};
    if (!request.error.empty()) m.error = request.error;
    if (m.error) log::warning("{}", *m.error);
    tell(request.client, m);
}

void Clients::stop() {
    if (begun_ && begun_->exit == 0) {
        begun_->exit = 1;
        begun_->error = "mpirun is ending: nothing more is moved";
        answer(*begun_);
    }
    begun_.reset();
    if (soon_) adapter_.cancel(*soon_);
    soon_.reset();
    for (auto& [id, client] : clients_) client.connection->close();
    clients_.clear();
    if (listener_.valid()) adapter_.unwatch(watch_);
    listener_.close();
}

}  // namespace ghost::plugin
