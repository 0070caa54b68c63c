// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/fault.hpp"

#include <charconv>
#include <cstdlib>
#include <random>
#include <sstream>
#include <vector>

#include "base/clock.hpp"

namespace kernet {

namespace {

constexpr uint32_t all = 10'000;

class FaultyDriver final : public PacketDriver {
  public:
    FaultyDriver(std::unique_ptr<PacketDriver> driver, const FaultPlan& plan)
        : driver_(std::move(driver)), plan_(plan), random_(plan.seed) {}

    const char* name() const override { return driver_->name(); }
    LinkAddress address() const override { return driver_->address(); }
    Status connect(const LinkAddress& peer, uint64_t token) override {
        return driver_->connect(peer, token);
    }
    size_t max_packet() const override { return driver_->max_packet(); }
    size_t receive_room() const override { return driver_->receive_room(); }
    int fd() const override { return driver_->fd(); }
    bool holds() const override { return driver_->holds(); }

    int send(const PacketView* packets, int count) override {
        for (int i = 0; i < count; i++) {
            if (chance(plan_.cut)) broken_ = true;
            if (broken_) return -1;
            send_one(packets[i]);
        }
        return let_go() ? count : -1;
    }
    int receive(PacketView* packets, int most) override {
        if (broken_ || !let_go()) return -1;
        return driver_->receive(packets, most);
    }

  private:
    struct Kept {
        std::vector<uint8_t> bytes;
        uint64_t until;  // number of packets sent
        int64_t at;      // or time
    };

    bool chance(uint32_t part) { return part > 0 && random_() % all < part; }

    void send_one(const PacketView& packet) {
        sent_++;
        if (chance(plan_.drop)) return;
        const int copies = chance(plan_.duplicate) ? 2 : 1;
        for (int i = 0; i < copies; i++) {
            std::vector<uint8_t> bytes(packet.data, packet.data + packet.size);
            if (chance(plan_.corrupt)) {
                const size_t at = random_() % bytes.size();
                bytes[at] = static_cast<uint8_t>(bytes[at] ^ 1U << random_() % 8);
            }
            const bool later = chance(plan_.reorder), much_later = chance(plan_.delay);
            if (later || much_later) {
                const int64_t wait = later ? plan_.delay_us : 1 + random_() % plan_.delay_us;
                kept_.push_back({std::move(bytes), later ? sent_ + 2 + random_() % 8 : UINT64_MAX,
                                 ghost::monotonic_us() + wait});
                continue;
            }
            const PacketView view{bytes.data(), bytes.size()};
            if (driver_->send(&view, 1) < 0) broken_ = true;
        }
    }

    // Sends what was kept long enough. False: broken.
    bool let_go() {
        if (kept_.empty()) return !broken_;
        const int64_t now = ghost::monotonic_us();
        for (size_t i = 0; i < kept_.size() && !broken_;) {
            if (kept_[i].until > sent_ && kept_[i].at > now) {
                i++;
                continue;
            }
            const PacketView view{kept_[i].bytes.data(), kept_[i].bytes.size()};
            if (driver_->send(&view, 1) < 0) broken_ = true;
            kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(i));
        }
        return !broken_;
    }

    std::unique_ptr<PacketDriver> driver_;
    FaultPlan plan_;
    std::mt19937 random_;
    std::vector<Kept> kept_;
    uint64_t sent_ = 0;
    bool broken_ = false;
};

}  // namespace

Result<FaultPlan> FaultPlan::parse(const std::string& text) {
    FaultPlan plan;
    std::istringstream list(text);
    for (std::string item; std::getline(list, item, ',');) {
        const size_t equals = item.find('=');
        const std::string name = item.substr(0, equals);
        uint32_t value = 0;
        const char* first = item.data() + (equals == std::string::npos ? item.size() : equals + 1);
        const char* last = item.data() + item.size();
        const auto read = std::from_chars(first, last, value);
        uint32_t* field = name == "seed"        ? &plan.seed
                          : name == "drop"      ? &plan.drop
                          : name == "duplicate" ? &plan.duplicate
                          : name == "reorder"   ? &plan.reorder
                          : name == "delay"     ? &plan.delay
                          : name == "corrupt"   ? &plan.corrupt
                          : name == "cut"       ? &plan.cut
                                                : nullptr;
        const bool too_often = field && field != &plan.seed && value > all;
        if (!field || read.ec != std::errc() || read.ptr != last || too_often) {
            return ghost::make_error(ghost::Code::invalid,
                                     "read faults of links (seed, drop, duplicate, reorder, delay, "
                                     "corrupt, cut, each =NUMBER, of 10000)",
                                     item);
        }
        *field = value;
    }
    return plan;
}

Result<FaultPlan> FaultPlan::from_environment() {
    const char* text = std::getenv("GHOST_LINK_FAULTS");
    if (!text) return FaultPlan();
    return parse(text);
}

std::unique_ptr<PacketDriver> make_faulty(std::unique_ptr<PacketDriver> driver,
                                          const FaultPlan& plan) {
    return std::make_unique<FaultyDriver>(std::move(driver), plan);
}

}  // namespace kernet
