// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/sign.hpp"

#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/own_file.hpp"

namespace ghost::core {
namespace {

constexpr std::array<char, 8> magic = {'\x89', 'G', 'H', 'S', 'I', 'G', '\r', '\n'};
constexpr const char* secret_label = "ghost-secret-key ";
constexpr const char* public_label = "ghost-public-key ";
using Bytes32 = std::array<unsigned char, 32>;

// What follows the label; nothing if it is no such key.
std::optional<Bytes32> key_of(const std::string& text, const std::string& label) {
    if (!text.starts_with(label) || text.size() > label.size() + 65) return std::nullopt;
    auto digits = std::string_view(text).substr(label.size());
    if (!digits.empty() && digits.back() == '\n') digits.remove_suffix(1);
    auto bytes = decode_hex(digits);
    Bytes32 out{};
    if (!bytes || bytes->size() != out.size()) return std::nullopt;
    std::memcpy(out.data(), bytes->data(), out.size());
    sodium_memzero(bytes->data(), bytes->size());
    return out;
}

struct KeyFile {
    std::string text;
    bool readable = false;  // by others
    ~KeyFile() { sodium_memzero(text.data(), text.size()); }
};

Status read_key(const std::string& path, KeyFile& out) {
    const auto file = open_trusted_file(path);
    if (!file) return file.error();
    struct stat info {};
    if (::fstat(file->get(), &info) != 0) return sys_error("open key", path);
    out.readable = (info.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    std::array<char, 128> text{};
    const auto got = ::read(file->get(), text.data(), text.size());
    if (got < 0) return sys_error("read key", path);
    out.text.assign(text.data(), static_cast<size_t>(got));
    sodium_memzero(text.data(), text.size());
    return {};
}

Error no_key(const std::string& path, const char* kind) {
    return make_error(Code::invalid, "use key", path,
                      fmt::format("it is no {} key that `ghost key` has made", kind));
}

std::string hex(const unsigned char* bytes, size_t size) {
    return encode_hex({reinterpret_cast<const char*>(bytes), size});
}

}  // namespace

std::string PublicKey::hex() const {
    return core::hex(bytes_.data(), bytes_.size());
}

Result<PublicKey> PublicKey::load(const std::string& path) {
    KeyFile file;
    GHOST_TRY(read_key(path, file));
    if (auto bytes = key_of(file.text, public_label)) return PublicKey(*bytes);
    if (!key_of(file.text, secret_label)) return no_key(path, "public");
    auto secret = SigningKey::load(path);
    if (!secret) return secret.error();
    return (*secret)->public_key();
}

SigningKey::SigningKey(const std::array<unsigned char, seed_size>& seed) : public_(Bytes32{}) {
    Bytes32 bytes{};
    crypto_sign_seed_keypair(bytes.data(), secret_.data(), seed.data());
    public_ = PublicKey(bytes);
}

SigningKey::~SigningKey() {
    sodium_memzero(secret_.data(), secret_.size());
}

Result<std::shared_ptr<const SigningKey>> SigningKey::load(const std::string& path) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    KeyFile file;
    GHOST_TRY(read_key(path, file));
    auto seed = key_of(file.text, secret_label);
    if (!seed) return no_key(path, "secret");
    if (file.readable)
        return make_error(Code::refused, "use key", path, "others may read it (chmod 600)");
    auto out = std::make_shared<const SigningKey>(*seed);
    sodium_memzero(seed->data(), seed->size());
    return out;
}

namespace {

Status put(const Fd& file, const std::string& text, const std::string& path) {
    GHOST_TRY(write_all(file.get(), text, path));
    if (::fsync(file.get()) != 0) return sys_error("sync", path);
    return {};
}

Status write_keys(const std::string& path, const std::string& other, const std::string& secret,
                  const PublicKey& key) {
    auto mine = open_own_file(path, O_WRONLY | O_CREAT | O_EXCL);
    if (!mine) return mine.error();
    auto theirs = open_own_file(other, O_WRONLY | O_CREAT | O_EXCL);
    if (!theirs) {
        ::unlink(path.c_str());
        return theirs.error();
    }
    Status done = put(*mine, secret, path);
    if (done.ok()) done = put(*theirs, public_label + key.hex() + "\n", other);
    if (done.ok() && ::fchmod(theirs->get(), 0644) != 0) done = sys_error("hand on", other);
    if (done.ok()) return done;
    ::unlink(path.c_str());
    ::unlink(other.c_str());
    return done;
}

}  // namespace

Result<PublicKey> make_keys(const std::string& path) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    Bytes32 seed{};
    randombytes_buf(seed.data(), seed.size());
    const auto key = SigningKey(seed).public_key();
    std::string secret = secret_label + hex(seed.data(), seed.size()) + "\n";
    const Status done = write_keys(path, path + ".pub", secret, key);
    sodium_memzero(seed.data(), seed.size());
    sodium_memzero(secret.data(), secret.size());
    if (!done.ok()) return done.error();
    return key;
}

// Before each unit.
struct SignResource::Record {
    uint32_t size = 0;
    uint32_t last = 0;  // 1: nothing follows, `size` is 0
    std::array<unsigned char, crypto_sign_BYTES> signature{};
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

    const unsigned char* bytes() const { return reinterpret_cast<const unsigned char*>(this); }
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

std::unique_ptr<Resource> SignResource::reader(std::unique_ptr<Resource> inner,
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
    crypto_generichash(out.hash.data(), out.hash.size(),
                       reinterpret_cast<const unsigned char*>(slot.raw.data()), record.size,
                       nullptr, 0);
    return out;
}

void SignResource::sign(Slot& slot, bool last) const {
    Record record;
    record.size = static_cast<uint32_t>(slot.size);
    record.last = last ? 1 : 0;
    const auto text = statement(record, slot);
    crypto_sign_detached(record.signature.data(), nullptr, text.bytes(), sizeof text,
                         key_->bytes());
    slot.coded.resize(sizeof record);
    std::memcpy(slot.coded.data(), &record, sizeof record);
}

Status SignResource::check(const Slot& slot) const {
    if (!signer_) return {};
    Record record;
    std::memcpy(&record, slot.coded.data(), sizeof record);
    const auto text = statement(record, slot);
    if (crypto_sign_verify_detached(record.signature.data(), text.bytes(), sizeof text,
                                    signer_->bytes()) == 0)
        return {};
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
