// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/clients.hpp"

#include <algorithm>
#include <limits>
#include <sys/stat.h>

#include "base/log.hpp"
#include "pmix-plugin/protocol/message.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_clients = 64;

// {"ranks":[1,2]}: the numbers, or nothing if the form is wrong.
std::vector<RankId> ranks_of(const Json& m) {
    std::vector<RankId> out;
    const Json* list = field(m, "ranks");
    if (list == nullptr || !list->is_array()) return {};
    for (const Json& item : *list) {
        if (!item.is_number_integer() || item.get<int64_t>() < 0) return {};
        if (item.get<uint64_t>() > std::numeric_limits<RankId>::max()) return {};
        out.push_back(item.get<RankId>());
    }
    return out;
}

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
    clients_[id] = ControlConnection::open(
        adapter_, std::move(*socket), [this, id](ControlMessage& m) { message(id, m.body); },
        [this, id] { closed(id); });
}

void Clients::closed(ClientId id) {
    clients_.erase(id);
    queue_.drop(id);
}

void Clients::tell(ClientId id, const Json& m) {
    auto it = clients_.find(id);
    if (it != clients_.end()) it->second->send(m);
}

void Clients::refuse(ClientId id, const std::string& why) {
    tell(id, {{"t", "result"}, {"exit", 1}, {"result", Json::array()}, {"error", why}});
}

void Clients::message(ClientId id, const Json& m) {
    std::string type = text(m, "t");
    if (type == "ps") return tell(id, {{"t", "result"}, {"exit", 0}, {"result", services_.ps()}});
    if (type == "migrate") return migrate(id, m);
    if (type == "checkpoint") return checkpoint(id, m);
    if (type == "error") return;
    log::warning("the ghost command sent an unknown message {}", type);
    tell(id, {{"t", "error"}, {"why", "unknown message " + type}});
}

void Clients::migrate(ClientId id, const Json& m) {
    auto request = std::make_shared<Request>();
    request->client = id;
    request->ranks = ranks_of(m);
    request->to = text(m, "to");
    request->mode = text(m, "mode");
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

void Clients::checkpoint(ClientId id, const Json& m) {
    SnapshotOrder order;
    order.then = text(m, "then", "continue");
    order.to = text(m, "to");
    order.asked_by = "ghost checkpoint";
    auto progress = [this, id](const SnapshotRun& run) {
        tell(id, {{"t", "progress"},
                  {"phase", name(run.state)},
                  {"bytes", run.bytes},
                  {"total", run.total}});
    };
    auto finished = [this, id](const SnapshotRun& run) {
        const int exit = run.state == SnapshotState::done ? 0 : run.harmed ? 3 : 1;
        Json answer = {{"t", "result"}, {"exit", exit}, {"result", result_of(run)}};
        if (exit != 0) answer["error"] = run.why;
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
    tell(id, {{"t", "progress"},
              {"rank", move.rank},
              {"phase", name(move.state)},
              {"bytes", move.bytes},
              {"total", move.total}});
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
    Json m = {{"t", "result"}, {"exit", request.exit}, {"result", request.rows}};
    if (!request.error.empty()) m["error"] = request.error;
    if (!request.error.empty()) log::warning("{}", request.error);
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
    for (auto& [id, channel] : clients_) channel->close();
    clients_.clear();
    if (listener_.valid()) adapter_.unwatch(watch_);
    listener_.close();
}

}  // namespace ghost::plugin
