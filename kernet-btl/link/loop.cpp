// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/loop.hpp"

#include <algorithm>
#include <cstring>

namespace kernet {

namespace {

constexpr size_t largest = 16 * 1024;
constexpr size_t inbox_room = 1 << 20;  // bytes

}  // namespace

class LoopDriver final : public PacketDriver {
  public:
    LoopDriver(std::shared_ptr<LoopHub> hub, uint64_t id, std::shared_ptr<LoopHub::Inbox> own)
        : hub_(std::move(hub)), id_(id), own_(std::move(own)) {}
    ~LoopDriver() override {
        hub_->forget(id_);
        std::lock_guard lock(own_->mutex);
        own_->closed = true;
    }

    const char* name() const override { return "loop"; }
    LinkAddress address() const override {
        LinkAddress out;
        out.most = largest;
        out.size = sizeof id_;
        std::memcpy(out.bytes.data(), &id_, sizeof id_);
        return out;
    }
    Status connect(const LinkAddress& peer, uint64_t) override {
        uint64_t id;
        if (peer.size != sizeof id) return ghost::make_error(ghost::Code::corrupt, "find a peer");
        std::memcpy(&id, peer.bytes.data(), sizeof id);
        peer_ = hub_->find(id);
        if (!peer_) return ghost::make_error(ghost::Code::peer_lost, "find a peer by link loop");
        return {};
    }
    size_t max_packet() const override { return largest; }
    size_t receive_room() const override { return inbox_room; }
    int fd() const override { return -1; }

    int send(const PacketView* packets, int count) override {
        std::lock_guard lock(peer_->mutex);
        if (peer_->closed) return -1;
        for (int i = 0; i < count; i++) {
            if (peer_->bytes + packets[i].size > inbox_room) continue;  // lost
            peer_->packets.emplace_back(packets[i].data, packets[i].data + packets[i].size);
            peer_->bytes += packets[i].size;
        }
        return count;
    }
    int receive(PacketView* packets, int most) override {
        taken_.clear();
        std::lock_guard lock(own_->mutex);
        while (!own_->packets.empty() && static_cast<int>(taken_.size()) < most) {
            own_->bytes -= own_->packets.front().size();
            taken_.push_back(std::move(own_->packets.front()));
            own_->packets.pop_front();
        }
        for (size_t i = 0; i < taken_.size(); i++)
            packets[i] = {taken_[i].data(), taken_[i].size()};
        return static_cast<int>(taken_.size());
    }

  private:
    std::shared_ptr<LoopHub> hub_;
    uint64_t id_;
    std::shared_ptr<LoopHub::Inbox> own_, peer_;
    std::vector<std::vector<uint8_t>> taken_;  // what receive() gave last
};

std::unique_ptr<PacketDriver> LoopHub::make() {
    auto inbox = std::make_shared<Inbox>();
    std::lock_guard lock(mutex_);
    const uint64_t id = next_++;
    inboxes_[id] = inbox;
    return std::make_unique<LoopDriver>(shared_from_this(), id, std::move(inbox));
}

std::shared_ptr<LoopHub::Inbox> LoopHub::find(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto found = inboxes_.find(id);
    return found == inboxes_.end() ? nullptr : found->second.lock();
}

void LoopHub::forget(uint64_t id) {
    std::lock_guard lock(mutex_);
    inboxes_.erase(id);
}

}  // namespace kernet
