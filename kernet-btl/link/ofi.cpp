// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/ofi.hpp"

#ifdef GHOST_HAVE_LIBFABRIC
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>

#include <algorithm>
#include <array>
#include <arpa/inet.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sodium.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/pipe_signal.hpp"
#include "kernet-btl/link/net.hpp"

namespace kernet {

namespace {

using ghost::Code;
using ghost::make_error;
using ghost::PipeSignalBlock;  // libfabric writes to what may be closed, from every call

constexpr size_t largest = 32 * 1024;  // packet, bytes
constexpr size_t receives = 64;        // posted at once
constexpr size_t sends = 64;           // on their way at once
constexpr int64_t connect_us = 1'000'000;
constexpr uint32_t events_every = 64;  // looks at messages for one at the connection

// --- the library ---

struct Library {
    decltype(&::fi_getinfo) getinfo = nullptr;
    decltype(&::fi_freeinfo) freeinfo = nullptr;
    decltype(&::fi_dupinfo) dupinfo = nullptr;
    decltype(&::fi_fabric) fabric = nullptr;
    std::string missing;  // why there is none
};

// Libraries it brings set handlers of signals (psm2: those of a crash); they are the program's.
class SignalsKept {
  public:
    SignalsKept() {
        for (size_t i = 1; i < kept_.size(); i++)
            sigaction(static_cast<int>(i), nullptr, &kept_[i]);
    }
    ~SignalsKept() {
        for (size_t i = 1; i < kept_.size(); i++)
            sigaction(static_cast<int>(i), &kept_[i], nullptr);
    }

  private:
    std::array<struct sigaction, 32> kept_{};
};

using Info = std::unique_ptr<fi_info, decltype(&::fi_freeinfo)>;

// What there is for connections from the address `from` (numeric; null: any).
Info find_provider(const Library& library, const char* from) {
    const PipeSignalBlock no_signal;
    Info hints(library.dupinfo(nullptr), library.freeinfo), found(nullptr, library.freeinfo);
    if (!hints) return found;
    hints->caps = FI_MSG;
    hints->ep_attr->type = FI_EP_MSG;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;  // by us, not by threads of its own
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
    hints->addr_format = FI_SOCKADDR;
    if (!std::getenv("FI_PROVIDER")) hints->fabric_attr->prov_name = strdup("tcp");
    fi_info* first = nullptr;
    if (library.getinfo(FI_VERSION(1, 9), from, nullptr, from ? FI_SOURCE : 0, hints.get(),
                        &first) == 0) {
        found.reset(first);
    }
    return found;
}

const Library& library() {
    static const Library loaded = [] {
        Library made;
        const SignalsKept kept;
        void* file = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
        const auto find = [file](const char* name, auto& function) {
            function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
                file ? dlsym(file, name) : nullptr);
            return function != nullptr;
        };
        if (!find("fi_getinfo", made.getinfo) || !find("fi_freeinfo", made.freeinfo) ||
            !find("fi_dupinfo", made.dupinfo) || !find("fi_fabric", made.fabric)) {
            const char* why = dlerror();
            made.missing = why ? why : "libfabric.so.1 is not what it should be";
        } else if (!find_provider(made, nullptr)) {
            made.missing = "no provider of connected endpoints";
        }
        return made;
    }();
    return loaded;
}

// --- one end ---

template <typename Object>
struct Close {
    void operator()(Object* object) const { fi_close(&object->fid); }
};
template <typename Object>
using Owned = std::unique_ptr<Object, Close<Object>>;

// Of errno's kind, as libfabric returns them.
ghost::Error fabric_error(const char* tried, ssize_t code) {
    return ghost::sys_error_of(static_cast<int>(-code), tried);
}

// Who connects shows the other end's that it is whom the handshake was with.
using Badge = std::array<uint8_t, 16>;

class OfiDriver final : public PacketDriver {
  public:
    OfiDriver(Info info, const sockaddr_storage& peer) : info_(std::move(info)), peer_(peer) {
        randombytes_buf(badge_.data(), badge_.size());
    }

    ~OfiDriver() override {
        const PipeSignalBlock no_signal;
        if (listening_) refuse_all();
        std::vector<Held> held;
        if (port_ != 0) note_connections(held);
        endpoint_.reset();
        if (port_ != 0) note_connections(held);
        listening_.reset();
        completions_.reset();
        events_.reset();
        domain_.reset();
        for (const Held& one : held) {
            if (inode_of(one.fd) == one.inode) ::close(one.fd);
        }
    }

    // Everything but the endpoint, listening.
    Status open() {
        const PipeSignalBlock no_signal;
        fid_fabric* fabric = nullptr;
        if (int r = library().fabric(info_->fabric_attr, &fabric, nullptr); r != 0) {
            return fabric_error("open a fabric", r);
        }
        fabric_.reset(fabric);
        fid_domain* domain = nullptr;
        if (int r = fi_domain(fabric, info_.get(), &domain, nullptr); r != 0) {
            return fabric_error("open a domain of a fabric", r);
        }
        domain_.reset(domain);
        GHOST_TRY(open_queues());
        return listen();
    }

    const char* name() const override { return "ofi"; }
    int fd() const override { return -1; }
    size_t max_packet() const override { return most_; }
    size_t receive_room() const override { return receives * most_; }
    LinkAddress address() const override {
        LinkAddress out;
        out.most = largest;
        out.size = sizeof port_ + sizeof badge_;
        std::memcpy(out.bytes.data(), &port_, sizeof port_);
        std::memcpy(out.bytes.data() + sizeof port_, badge_.data(), sizeof badge_);
        return out;
    }

    // The end with the lower badge connects, the other one waits for it.
    Status connect(const LinkAddress& peer, uint64_t) override {
        const PipeSignalBlock no_signal;
        if (peer.size != sizeof port_ + sizeof badge_ || peer.most < 1024) {
            return make_error(Code::corrupt, "connect by libfabric", {},
                              "no address of a link ofi");
        }
        most_ = std::min<size_t>(most_, peer.most);
        std::memcpy(&port_of(peer_), peer.bytes.data(), sizeof port_);
        std::memcpy(peer_badge_.data(), peer.bytes.data() + sizeof port_, sizeof peer_badge_);
        in_ = std::make_unique_for_overwrite<uint8_t[]>(receives * most_);
        out_ = std::make_unique_for_overwrite<uint8_t[]>(sends * most_);
        for (size_t i = 0; i < sends; i++) free_.push_back(&out_[i * most_]);
        give_up_at_ = ghost::monotonic_us() + connect_us;
        if (peer_badge_ <= badge_) return {};
        GHOST_TRY(make_endpoint(info_.get()));
        const int r = fi_connect(endpoint_.get(), &peer_, badge_.data(), badge_.size());
        return r == 0 ? Status{} : Status{fabric_error("connect by libfabric", r)};
    }

    int send(const PacketView* packets, int count) override {
        const PipeSignalBlock no_signal;
        look();
        if (state_ == State::broken) return -1;
        // What cannot leave for long is lost, so that whoever waits for an answer gives up.
        if (state_ == State::connecting) return ghost::monotonic_us() < give_up_at_ ? 0 : count;
        for (int i = 0; i < count; i++) {
            if (free_.empty() || !send_one(packets[i])) {
                return state_ == State::broken ? -1 : i;
            }
        }
        return count;
    }

    int receive(PacketView* packets, int most) override {
        const PipeSignalBlock no_signal;
        for (uint8_t* given : given_) post(given);
        given_.clear();
        look();
        while (!arrived_.empty() && static_cast<int>(given_.size()) < most) {
            *packets++ = arrived_.front();
            given_.push_back(arrived_.front().data);
            arrived_.erase(arrived_.begin());
        }
        const auto count = static_cast<int>(given_.size());
        return count == 0 && state_ == State::broken ? -1 : count;
    }

  private:
    enum class State : uint8_t { connecting, connected, broken };

    static in_port_t& port_of(sockaddr_storage& address) {  // at the same place in both (RFC 3493)
        return reinterpret_cast<sockaddr_in*>(&address)->sin_port;
    }

    Status open_queues() {
        fi_eq_attr events{};
        events.wait_obj = FI_WAIT_NONE;
        fid_eq* eq = nullptr;
        if (int r = fi_eq_open(fabric_.get(), &events, &eq, nullptr); r != 0) {
            return fabric_error("open an event queue of a fabric", r);
        }
        events_.reset(eq);
        fi_cq_attr completions{};
        completions.size = receives + sends;
        completions.format = FI_CQ_FORMAT_MSG;
        completions.wait_obj = FI_WAIT_NONE;
        fid_cq* cq = nullptr;
        if (int r = fi_cq_open(domain_.get(), &completions, &cq, nullptr); r != 0) {
            return fabric_error("open a completion queue of a fabric", r);
        }
        completions_.reset(cq);
        return {};
    }

    Status listen() {
        fid_pep* listening = nullptr;
        if (int r = fi_passive_ep(fabric_.get(), info_.get(), &listening, nullptr); r != 0) {
            return fabric_error("listen by libfabric", r);
        }
        listening_.reset(listening);
        sockaddr_storage own{};
        size_t size = sizeof own;
        int r = fi_pep_bind(listening, &events_->fid, 0);
        if (r == 0) r = fi_listen(listening);
        if (r == 0) r = fi_getname(&listening->fid, &own, &size);
        if (r != 0) return fabric_error("listen by libfabric", r);
        port_ = port_of(own);
        return {};
    }

    // Ready to be connected, with receives posted.
    Status make_endpoint(fi_info* info) {
        fid_ep* endpoint = nullptr;
        if (int r = fi_endpoint(domain_.get(), info, &endpoint, nullptr); r != 0) {
            return fabric_error("make an endpoint of libfabric", r);
        }
        endpoint_.reset(endpoint);
        int r = fi_ep_bind(endpoint, &events_->fid, 0);
        if (r == 0) r = fi_ep_bind(endpoint, &completions_->fid, FI_TRANSMIT | FI_RECV);
        if (r == 0) r = fi_enable(endpoint);
        if (r != 0) return fabric_error("enable an endpoint of libfabric", r);
        for (size_t i = 0; i < receives; i++) post(&in_[i * most_]);
        return {};
    }

    void post(uint8_t* room) {
        if (state_ == State::broken) return;
        const ssize_t r = fi_recv(endpoint_.get(), room, most_, nullptr, 0, room);
        if (r != 0) state_ = State::broken;  // there is room for all that we have
    }

    // False: not now.
    bool send_one(const PacketView& packet) {
        uint8_t* room = free_.back();
        std::memcpy(room, packet.data, packet.size);
        const ssize_t r = fi_send(endpoint_.get(), room, packet.size, nullptr, 0, room);
        if (r == 0) free_.pop_back();
        if (r != 0 && r != -FI_EAGAIN) state_ = State::broken;
        return r == 0;
    }

    void look() {
        if (state_ == State::connecting || ++looks_ % events_every == 0) look_at_connection();
        if (!endpoint_ || state_ == State::broken) return;
        fi_cq_msg_entry done[16];
        ssize_t count;
        while ((count = fi_cq_read(completions_.get(), done, std::size(done))) > 0) {
            for (ssize_t i = 0; i < count; i++) completed(done[i]);
        }
        // What was posted comes back with an error when the connection ends.
        if (count < 0 && count != -FI_EAGAIN) state_ = State::broken;
    }

    void completed(const fi_cq_msg_entry& entry) {
        auto* room = static_cast<uint8_t*>(entry.op_context);
        if (entry.flags & FI_RECV) {
            arrived_.push_back({room, std::min(entry.len, most_)});
        } else {
            free_.push_back(room);
        }
    }

    void look_at_connection() {
        alignas(fi_eq_cm_entry) uint8_t space[sizeof(fi_eq_cm_entry) + 256];
        auto* entry = reinterpret_cast<fi_eq_cm_entry*>(space);
        uint32_t event = 0;
        for (;;) {
            const ssize_t size = fi_eq_read(events_.get(), &event, space, sizeof space, 0);
            if (size == -FI_EAGAIN) return;
            if (size < static_cast<ssize_t>(sizeof *entry)) return refused();
            if (event == FI_CONNREQ) {
                asked(entry, static_cast<size_t>(size) - sizeof *entry);
            } else if (event == FI_CONNECTED && endpoint_ && entry->fid == &endpoint_->fid) {
                state_ = State::connected;
            } else if (event == FI_SHUTDOWN) {
                state_ = State::broken;
                return;
            }
        }
    }

    // Requests nobody will answer.
    void refuse_all() {
        state_ = State::broken;
        look_at_connection();
    }

    struct Held {
        int fd;
        uint64_t inode;
    };
    // By its name: what others open and close meanwhile is not touched. 0 if it is no socket.
    static uint64_t inode_of(int fd) {
        char name[64]{};
        const std::string link = "/proc/self/fd/" + std::to_string(fd);
        unsigned long long inode = 0;
        if (readlink(link.c_str(), name, sizeof name - 1) < 0) return 0;
        return std::sscanf(name, "socket:[%llu]", &inode) == 1 ? inode : 0;
    }

    // Adds connections that have come to our port, nobody else's while the listener is open.
    // Provider tcp never closes one whose request it has not read to its end (libfabric 1.17), and
    // it would keep this process from being moved; so the destructor sees to those that are left.
    // What somebody else has made a copy of is his: of the numbers of one socket (the list is in
    // their order) the first is ours.
    void note_connections(std::vector<Held>& out) const {
        DIR* folder = opendir("/proc/self/fd");
        if (!folder) return;
        while (const dirent* entry = readdir(folder)) {
            const int fd = std::atoi(entry->d_name);
            sockaddr_storage own{};
            socklen_t size = sizeof own;
            if (fd < 3 || getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) != 0) continue;
            if (own.ss_family != peer_.ss_family || port_of(own) != port_) continue;
            int type = 0;
            size = sizeof type;
            if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
                continue;
            int listens = 0;
            size = sizeof listens;
            if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens)
                continue;
            const uint64_t inode = inode_of(fd);
            const bool known = std::any_of(out.begin(), out.end(),
                                           [inode](const Held& one) { return one.inode == inode; });
            if (inode != 0 && !known) out.push_back({fd, inode});
        }
        closedir(folder);
    }

    void refused() {
        fi_eq_err_entry error{};
        (void)fi_eq_readerr(events_.get(), &error, 0);
        state_ = State::broken;
    }

    // Somebody connects: the peer, if it knows its badge.
    void asked(const fi_eq_cm_entry* entry, size_t said) {
        const Info info(entry->info, library().freeinfo);
        const bool known = state_ == State::connecting && said >= peer_badge_.size() &&
                           !endpoint_ &&
                           sodium_memcmp(entry->data, peer_badge_.data(), peer_badge_.size()) == 0;
        if (!known) {
            if (listening_) (void)fi_reject(listening_.get(), info->handle, nullptr, 0);
            return;
        }
        if (!make_endpoint(info.get()) || fi_accept(endpoint_.get(), nullptr, 0) != 0) {
            state_ = State::broken;
        }
    }

    // Closed from the last one on.
    Info info_;
    Owned<fid_fabric> fabric_;
    Owned<fid_domain> domain_;
    Owned<fid_eq> events_;
    Owned<fid_cq> completions_;
    std::unique_ptr<uint8_t[]> in_, out_;
    Owned<fid_pep> listening_;
    Owned<fid_ep> endpoint_;

    sockaddr_storage peer_;
    in_port_t port_ = 0;  // network order
    Badge badge_{}, peer_badge_{};
    size_t most_ = largest;
    State state_ = State::connecting;
    int64_t give_up_at_ = 0;
    uint32_t looks_ = 0;
    std::vector<uint8_t*> free_;       // pieces of out_ not on their way
    std::vector<uint8_t*> given_;      // pieces of in_ the caller has
    std::vector<PacketView> arrived_;  // in order
};

// An IPv4 address in an IPv6 socket as one of IPv4.
void unmap(sockaddr_storage& address) {
    if (address.ss_family != AF_INET6) return;
    const auto six = reinterpret_cast<sockaddr_in6&>(address);
    if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) return;
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = six.sin6_port;
    std::memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, sizeof four.sin_addr);
    address = {};
    std::memcpy(&address, &four, sizeof four);
}

}  // namespace

Status ofi_usable() {
    if (library().missing.empty()) return {};
    return make_error(Code::unsupported, "use libfabric", {}, library().missing);
}

Result<std::unique_ptr<PacketDriver>> make_ofi(const ghost::Fd& beside) {
    GHOST_TRY(ofi_usable());
    auto ends = net::ends_of(beside);
    if (!ends) return ends.error();
    sockaddr_storage &own = ends->own, &peer = ends->peer;
    unmap(own);
    unmap(peer);
    const void* host = own.ss_family == AF_INET6
                           ? static_cast<void*>(&reinterpret_cast<sockaddr_in6*>(&own)->sin6_addr)
                           : &reinterpret_cast<sockaddr_in*>(&own)->sin_addr;
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(own.ss_family, host, text, sizeof text)) {
        return make_error(Code::unsupported, "use libfabric beside this connection");
    }
    Info info = find_provider(library(), text);
    if (!info) return make_error(Code::unsupported, "use libfabric at the address", text);
    auto driver = std::make_unique<OfiDriver>(std::move(info), peer);
    GHOST_TRY(driver->open());
    return std::unique_ptr<PacketDriver>(std::move(driver));
}

}  // namespace kernet

#else

namespace kernet {

Status ofi_usable() {
    return ghost::make_error(ghost::Code::unsupported, "use libfabric", {},
                             "Ghost was built without it (libfabric-dev)");
}
Result<std::unique_ptr<PacketDriver>> make_ofi(const ghost::Fd&) {
    return ofi_usable().error();
}

}  // namespace kernet

#endif
