// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/sign.hpp"

#include <cstring>
#include <fmt/format.h>
#include <sodium.h>

namespace ghost::core {
namespace {

constexpr std::array<char, 8> magic = {'\x89', 'G', 'H', 'S', 'I', 'G', '\r', '\n'};

}  // namespace

// Before each unit.
struct SignResource::Record {
    uint32_t size = 0;
    uint32_t last = 0;  // 1: nothing follows, `size` is 0
    Signature signature{};
};

// What is signed: no unit can stand for another one of this or of another ghost.
struct SignResource::Statement {
    std::array<char, 16> label = {'g', 'h', 'o', 's', 't', ' ', 'u', 'n', 'i', 't', ' ', '1'};
    std::array<unsigned char, PublicKey::size> signer{};
    std::array<unsigned char, 16> id{};
    uint64_t number = 0;
    uint32_t size = 0;
    uint32_t last = 0;
    std::array<unsigned char, 64> hash{};  // BLAKE2b-512 of the unit

    std::string_view bytes() const { return {reinterpret_cast<const char*>(this), sizeof *this}; }
};

SignResource::SignResource(std::unique_ptr<Resource> inner, Use use)
    : UnitResource(use, slot_count), inner_(std::move(inner)) {
    static_assert(sizeof(Record) == 72 && sizeof(Statement) == 144);
}

SignResource::~SignResource() {
    stop();
}

std::unique_ptr<Resource> SignResource::writer(std::unique_ptr<Resource> inner,
                                               std::shared_ptr<const SigningKey> key) {
    std::unique_ptr<SignResource> out(new SignResource(std::move(inner), Use::write));
    out->key_ = std::move(key);
    return out;
}

std::unique_ptr<SignResource> SignResource::reader(std::unique_ptr<Resource> inner,
                                                   std::optional<PublicKey> signer) {
    std::unique_ptr<SignResource> out(new SignResource(std::move(inner), Use::read));
    out->signer_ = signer;
    return out;
}

bool SignResource::is_mine(const char* start) {
    return std::memcmp(start, magic.data(), magic.size()) == 0;
}

Status SignResource::open() {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    GHOST_TRY(inner_->init());
    std::array<char, magic.size()> start = magic;
    if (use() == Use::write) {
        std::memcpy(said_.data(), key_->public_key().bytes(), said_.size());
        randombytes_buf(id_.data(), id_.size());
        GHOST_TRY(inner_->write(start.data(), start.size()));
        GHOST_TRY(inner_->write(said_.data(), said_.size()));
        return inner_->write(id_.data(), id_.size());
    }
    GHOST_TRY(inner_->read_all(start.data(), start.size()));
    if (start != magic)
        return make_error(Code::refused, "check the signature of the ghost", {},
                          "it is not signed");
    GHOST_TRY(inner_->read_all(said_.data(), said_.size()));
    GHOST_TRY(inner_->read_all(id_.data(), id_.size()));
    if (signer_ && *signer_ != PublicKey(said_))
        return make_error(Code::refused, "check the signature of the ghost", {},
                          "it is signed by another, whose key is " + PublicKey(said_).hex());
    return {};
}

SignResource::Statement SignResource::statement(const Record& record, const Slot& slot) const {
    Statement out;
    out.signer = said_;
    out.id = id_;
    out.number = slot.number;
    out.size = record.size;
    out.last = record.last;
    out.hash = wide_hash({slot.raw.data(), record.size});
    return out;
}

void SignResource::sign(Slot& slot, bool last) const {
    Record record;
    record.size = static_cast<uint32_t>(slot.size);
    record.last = last ? 1 : 0;
    record.signature = key_->sign(statement(record, slot).bytes());
    slot.coded.resize(sizeof record);
    std::memcpy(slot.coded.data(), &record, sizeof record);
}

Status SignResource::check(const Slot& slot) const {
    if (!signer_) return {};
    Record record;
    std::memcpy(&record, slot.coded.data(), sizeof record);
    if (signer_->has_signed(statement(record, slot).bytes(), record.signature)) return {};
    return make_error(Code::refused, "check the signature of the ghost", {},
                      record.last == 1 ? std::string("its end is not what was signed")
                                       : fmt::format("MiB {} is not what was signed", slot.number));
}

void SignResource::work(Slot& slot) {
    if (use() == Use::write) return sign(slot, false);
    if (auto right = check(slot); !right.ok()) slot.error = right.error();
}

Status SignResource::emit(Slot& slot) {
    end_.number = slot.number + 1;
    GHOST_TRY(inner_->write(slot.coded.data(), slot.coded.size()));
    return inner_->write(slot.raw.data(), slot.size);
}

Status SignResource::close() {
    sign(end_, true);
    GHOST_TRY(inner_->write(end_.coded.data(), end_.coded.size()));
    return inner_->finalize();
}

Result<bool> SignResource::load(Slot& slot) {
    Record record;
    GHOST_TRY(inner_->read_all(&record, sizeof record));
    if (record.size > unit_bytes || record.last > 1 || (record.size == 0) != (record.last == 1))
        return make_error(Code::corrupt, "read signed ghost", {},
                          fmt::format("MiB {} has a wrong size", slot.number));
    slot.coded.resize(sizeof record);
    std::memcpy(slot.coded.data(), &record, sizeof record);
    GHOST_TRY(inner_->read_all(slot.raw.data(), record.size));
    slot.size = record.size;
    if (record.last == 0) return true;
    GHOST_TRY(check(slot));
    char more = 0;
    auto rest = inner_->read(&more, 1);
    if (!rest) return rest.error();
    if (*rest != 0)
        return make_error(Code::corrupt, "read signed ghost", {}, "something follows the end");
    return false;
}

}  // namespace ghost::core
