// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/end.hpp"

#include "kernet-btl/link/pair.hpp"
#include "kernet-btl/link/tcp.hpp"

namespace kernet {

namespace {

constexpr size_t small_slot_memory = 256 << 10;  // bytes; where what is large goes another way

// The initiator makes the rings, when they are agreed on and not before: that takes a while.
class ShmEnd final : public LinkEnd {
  public:
    explicit ShmEnd(const LinkSite& site) : geometry_(site.ring), pieces_(site.pieces) {}

    Result<int> give() override {
        auto made = RingMapping::create(geometry_);
        if (!made) return made.error();
        map_ = std::move(made->first);
        memory_ = std::move(made->second);
        return memory_.get();
    }
    Status take(ghost::Fd given) override {
        auto attached = RingMapping::attach(given);
        if (!attached) return attached.error();
        map_ = std::move(*attached);
        return {};
    }
    std::unique_ptr<Link> finish(const LinkTerms&) override {
        return std::make_unique<ShmLink>(std::move(map_), pieces_);
    }

  private:
    RingGeometry geometry_;
    RingPieces pieces_;
    std::unique_ptr<RingMapping> map_;
    ghost::Fd memory_;
};

std::unique_ptr<TcpLink> connection_link(ghost::Fd& connection, int64_t dead_after_us,
                                         const LinkTerms& terms) {
    return std::make_unique<TcpLink>(std::move(connection), terms.own_epoch, terms.peer_epoch,
                                     dead_after_us);
}

class TcpEnd final : public LinkEnd {
  public:
    explicit TcpEnd(const LinkSite& site)
        : connection_(site.connection), dead_after_us_(site.dead_after_us) {}
    std::unique_ptr<Link> finish(const LinkTerms& terms) override {
        return connection_link(connection_, dead_after_us_, terms);
    }

  private:
    ghost::Fd& connection_;
    int64_t dead_after_us_;
};

class PacketEnd final : public LinkEnd {
  public:
    // pair: the name of the link if the connection is part of it, else null
    PacketEnd(const LinkSite& site, std::unique_ptr<PacketDriver> driver, const char* pair)
        : connection_(site.connection),
          dead_after_us_(site.dead_after_us),
          driver_(std::move(driver)),
          pair_(pair) {}

    LinkAddress address() const override { return driver_->address(); }
    Status connect(const LinkAddress& peer, uint64_t token) override {
        return driver_->connect(peer, token);
    }
    PacketDriver* driver() override { return driver_.get(); }
    std::unique_ptr<Link> finish(const LinkTerms& terms) override {
        auto packets =
            std::make_unique<PacketLink>(std::move(driver_), terms.keys, dead_after_us_,
                                         pair_ ? small_slot_memory : PacketLink::usual_slot_memory);
        if (!pair_) return packets;
        return std::make_unique<PairLink>(pair_, std::move(packets),
                                          connection_link(connection_, dead_after_us_, terms));
    }

  private:
    ghost::Fd& connection_;
    int64_t dead_after_us_;
    std::unique_ptr<PacketDriver> driver_;
    const char* pair_;
};

Result<std::unique_ptr<LinkEnd>> with_packets(const LinkSite& site, const char* pair,
                                              Result<std::unique_ptr<PacketDriver>> driver) {
    if (!driver) return driver.error();
    if (site.faults.any()) *driver = make_faulty(std::move(*driver), site.faults);
    return std::unique_ptr<LinkEnd>(new PacketEnd(site, std::move(*driver), pair));
}

}  // namespace

Result<std::unique_ptr<LinkEnd>> make_shm_end(const LinkSite& site) {
    return std::unique_ptr<LinkEnd>(new ShmEnd(site));
}

Result<std::unique_ptr<LinkEnd>> make_tcp_end(const LinkSite& site) {
    return std::unique_ptr<LinkEnd>(new TcpEnd(site));
}

Result<std::unique_ptr<LinkEnd>> make_packet_end(const LinkSite& site,
                                                 Result<std::unique_ptr<PacketDriver>> driver) {
    return with_packets(site, nullptr, std::move(driver));
}

Result<std::unique_ptr<LinkEnd>> make_pair_end(const LinkSite& site, const char* name,
                                               Result<std::unique_ptr<PacketDriver>> driver) {
    return with_packets(site, name, std::move(driver));
}

}  // namespace kernet
