// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/stripe.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <sys/random.h>

namespace ghost::core {
namespace {

constexpr std::array<char, 8> magic = {'\x89', 'G', 'H', 'O', '-', 'S', '\r', '\n'};

struct MemberHeader {
    std::array<char, 8> mark = magic;
    uint32_t index = 0;
    uint32_t count = 0;
    uint64_t set = 0;  // random, the same in all members
};
static_assert(sizeof(MemberHeader) == 24);

Error wrong_set(size_t index, const char* what) {
    return make_error(Code::corrupt, "read striped ghost", {},
                      fmt::format("part {} {}", index, what));
}

}  // namespace

StripeResource::StripeResource(std::vector<std::unique_ptr<Resource>> members, Use use)
    : UnitResource(use, members.size()), members_(std::move(members)), over_(members_.size()) {}

StripeResource::~StripeResource() {
    stop();
}

bool StripeResource::is_mine(const char* start) {
    return std::memcmp(start, magic.data(), magic.size()) == 0;
}

void StripeResource::interrupt() {
    for (auto& member : members_) member->interrupt();
}

Status StripeResource::open() {
    if (members_.empty() || members_.size() > member_limit)
        return make_error(Code::invalid, "stripe a ghost over",
                          fmt::format("{} resources", members_.size()));
    MemberHeader header;
    header.count = static_cast<uint32_t>(members_.size());
    if (getrandom(&header.set, sizeof header.set, 0) != sizeof header.set)
        return sys_error("get a random number");
    for (size_t i = 0; i < members_.size(); i++) {
        GHOST_TRY(members_[i]->init());
        header.index = static_cast<uint32_t>(i);
        if (use() == Use::write) {
            GHOST_TRY(members_[i]->write(&header, sizeof header));
            continue;
        }
        MemberHeader found;
        GHOST_TRY(members_[i]->read_all(&found, sizeof found));
        if (found.mark != magic) return wrong_set(i, "is none");
        if (i == 0) header.set = found.set;
        if (found.count != header.count || found.set != header.set)
            return wrong_set(i, "belongs to another ghost");
        if (found.index != i) return wrong_set(i, "is not in its place");
    }
    return {};
}

void StripeResource::work(Slot& slot) {
    auto status = use() == Use::write ? write_unit(slot) : read_unit(slot);
    if (!status.ok()) slot.error = status.error();
}

Status StripeResource::write_unit(Slot& slot) {
    uint64_t size = slot.size;
    std::array<iovec, 2> pieces = {iovec{&size, sizeof size}, iovec{slot.raw.data(), slot.size}};
    return members_[slot.index]->write_gather(pieces.data(), pieces.size());
}

Status StripeResource::read_unit(Slot& slot) {
    auto& member = *members_[slot.index];
    uint64_t size = 0;
    GHOST_TRY(member.read_all(&size, sizeof size));
    if (size > unit_bytes) return wrong_set(slot.index, "is damaged");
    if (size > 0) {
        GHOST_TRY(member.read_all(slot.raw.data(), size));
    } else {
        over_[slot.index] = 1;
        char more = 0;
        auto rest = member.read(&more, 1);
        if (!rest) return rest.error();
        if (*rest != 0) return wrong_set(slot.index, "goes on after its end");
    }
    slot.size = size;
    return {};
}

// Each member is read by its own thread, one unit ahead; the first that has no more ends all.
Result<bool> StripeResource::load(Slot& slot) {
    return over_[slot.index] == 0;
}

Status StripeResource::close() {
    const uint64_t end = 0;
    for (auto& member : members_) {
        GHOST_TRY(member->write(&end, sizeof end));
        GHOST_TRY(member->finalize());
    }
    return {};
}

}  // namespace ghost::core
