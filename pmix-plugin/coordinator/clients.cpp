#include "pmix-plugin/coordinator/clients.hpp"

#include <algorithm>
#include <limits>
#include <sys/stat.h>

#include "base/log.hpp"
#include "pmix-plugin/message.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_clients = 64;
constexpr size_t most_requests = 1024;

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

Clients::Clients(RuntimeAdapter& adapter, Mover& mover, std::function<Json()> ps)
    : adapter_(adapter), mover_(mover), ps_(std::move(ps)) {}

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
    clients_[id] = Channel::open(
        adapter_, std::move(*socket), [this, id](ControlMessage& m) { message(id, m.body); },
        [this, id] { closed(id); });
}

void Clients::closed(ClientId id) {
    clients_.erase(id);
    size_t keep = begun_ ? 1 : 0;
    for (size_t i = queue_.size(); i > keep; --i) {
        if (queue_[i - 1].client == id) queue_.erase(queue_.begin() + static_cast<long>(i - 1));
    }
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
    if (type == "ps") return tell(id, {{"t", "result"}, {"exit", 0}, {"result", ps_()}});
    if (type == "migrate") return migrate(id, m);
    if (type == "error") return;
    log::warning("the ghost command sent an unknown message {}", type);
    tell(id, {{"t", "error"}, {"why", "unknown message " + type}});
}

void Clients::migrate(ClientId id, const Json& m) {
    Request request;
    request.client = id;
    request.ranks = ranks_of(m);
    request.to = text(m, "to");
    request.mode = text(m, "mode");
    if (request.ranks.empty() || request.to.empty()) {
        return refuse(id, "a migration names at least one rank and a node");
    }
    if (queue_.size() >= most_requests) return refuse(id, "too many moves wait already");
    queue_.push_back(std::move(request));
    next();
}

void Clients::next() {
    if (mover_.busy() || begun_ || queue_.empty()) return;
    begun_ = true;
    Request& request = queue_.front();
    MoveOrder order{request.ranks[request.next], request.to, request.mode};
    mover_.begin(
        order, [this](const Move& move) { progress(move); },
        [this](const Move& move) { finished(move); });
}

void Clients::progress(const Move& move) {
    if (queue_.empty()) return;
    tell(queue_.front().client, {{"t", "progress"},
                                 {"rank", move.rank},
                                 {"phase", name(move.state)},
                                 {"bytes", move.bytes},
                                 {"total", move.total}});
}

// The first rank that does not move ends the request: what the user meant by the rest may no longer
// hold, and nothing is lost by asking again.
void Clients::finished(const Move& move) {
    if (queue_.empty()) return;
    Request& request = queue_.front();
    request.rows.push_back(row_of(move));
    ++request.next;
    if (!move.why.empty() && move.state != MoveState::done) {
        request.exit = move.harmed ? 3 : 1;
        request.error = move.why;
        size_t left = request.ranks.size() - request.next;
        if (left > 0) request.error += fmt::format(" ({} more ranks were not tried)", left);
    }
    if (request.exit != 0 || request.next == request.ranks.size()) {
        answer(request);
        queue_.pop_front();
    }
    begun_ = false;
    // Not from here: the mover is still inside the end of this move, and a list of refusals must
    // not recurse.
    if (!soon_) {
        soon_ = adapter_.after(0, [this] {
            soon_.reset();
            next();
        });
    }
}

void Clients::answer(const Request& request) {
    Json m = {{"t", "result"}, {"exit", request.exit}, {"result", request.rows}};
    if (!request.error.empty()) m["error"] = request.error;
    if (!request.error.empty()) log::warning("{}", request.error);
    tell(request.client, m);
}

void Clients::stop() {
    for (Request& request : queue_) {
        if (request.exit != 0) continue;
        request.exit = 1;
        request.error = "mpirun is ending: nothing more is moved";
        answer(request);
    }
    queue_.clear();
    if (soon_) adapter_.cancel(*soon_);
    soon_.reset();
    for (auto& [id, channel] : clients_) channel->close();
    clients_.clear();
    if (listener_.valid()) adapter_.unwatch(watch_);
    listener_.close();
}

}  // namespace ghost::plugin
