// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/encrypt.hpp"

#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/own_file.hpp"

namespace ghost::core {
namespace {

constexpr std::array<char, 8> magic = {'\x89', 'G', 'H', 'O', '-', 'E', '\r', '\n'};
constexpr size_t extra = crypto_secretstream_xchacha20poly1305_ABYTES;

}  // namespace

Result<std::shared_ptr<SecretKey>> SecretKey::load(const std::string& path) {
    const auto file = open_trusted_file(path);
    if (!file) return file.error();
    const Fd& fd = *file;
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return sys_error("open key", path);
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return make_error(Code::refused, "use key", path, "others may read it (chmod 600)");
    std::array<char, 67> text{};
    const auto got = read(fd.get(), text.data(), text.size());
    std::array<unsigned char, 32> bytes{};
    size_t count = 0;
    if (got == 32) {
        std::memcpy(bytes.data(), text.data(), 32);
        count = 32;
    } else if (got == 64 || (got == 65 && text[64] == '\n')) {
        const char* end = nullptr;
        sodium_hex2bin(bytes.data(), bytes.size(), text.data(), 64, nullptr, &count, &end);
    }
    sodium_memzero(text.data(), text.size());
    if (count != 32)
        return make_error(Code::invalid, "use key", path,
                          "it is neither 32 bytes nor 64 hex digits");
    auto key = std::make_shared<SecretKey>(bytes);
    sodium_memzero(bytes.data(), bytes.size());
    return key;
}

SecretKey::~SecretKey() {
    sodium_memzero(bytes_.data(), bytes_.size());
}

struct EncryptResource::Stream {
    crypto_secretstream_xchacha20poly1305_state state;
    std::vector<char> coded;
};

EncryptResource::EncryptResource(std::unique_ptr<Resource> inner, Use use,
                                 std::shared_ptr<SecretKey> key)
    : UnitResource(use, 1),
      inner_(std::move(inner)),
      key_(std::move(key)),
      stream_(std::make_unique<Stream>()) {}

EncryptResource::~EncryptResource() {
    stop();
    sodium_memzero(&stream_->state, sizeof stream_->state);
}

bool EncryptResource::is_mine(const char* start) {
    return std::memcmp(start, magic.data(), magic.size()) == 0;
}

Status EncryptResource::open() {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    GHOST_TRY(inner_->init());
    std::array<char, magic.size()> start = magic;
    std::array<unsigned char, crypto_secretstream_xchacha20poly1305_HEADERBYTES> header{};
    if (use() == Use::write) {
        crypto_secretstream_xchacha20poly1305_init_push(&stream_->state, header.data(),
                                                        key_->bytes());
        GHOST_TRY(inner_->write(start.data(), start.size()));
        return inner_->write(header.data(), header.size());
    }
    GHOST_TRY(inner_->read_all(start.data(), start.size()));
    if (start != magic)
        return make_error(Code::corrupt, "decrypt ghost", {}, "it is not encrypted");
    GHOST_TRY(inner_->read_all(header.data(), header.size()));
    if (crypto_secretstream_xchacha20poly1305_init_pull(&stream_->state, header.data(),
                                                        key_->bytes()) != 0)
        return make_error(Code::corrupt, "decrypt the header of the ghost");
    return {};
}

// Size (which is authenticated too) and the message.
Status EncryptResource::message(const char* data, size_t size, unsigned char mark) {
    auto& coded = stream_->coded;
    const auto length = static_cast<uint32_t>(size);
    coded.resize(sizeof length + size + extra);
    std::memcpy(coded.data(), &length, sizeof length);
    crypto_secretstream_xchacha20poly1305_push(
        &stream_->state, reinterpret_cast<unsigned char*>(coded.data() + sizeof length), nullptr,
        reinterpret_cast<const unsigned char*>(data), size,
        reinterpret_cast<const unsigned char*>(&length), sizeof length, mark);
    return inner_->write(coded.data(), coded.size());
}

Status EncryptResource::emit(Slot& slot) {
    return message(slot.raw.data(), slot.size, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
}

Status EncryptResource::close() {
    GHOST_TRY(message(nullptr, 0, crypto_secretstream_xchacha20poly1305_TAG_FINAL));
    return inner_->finalize();
}

Result<bool> EncryptResource::load(Slot& slot) {
    uint32_t length = 0;
    GHOST_TRY(inner_->read_all(&length, sizeof length));
    if (length > unit_bytes)
        return make_error(Code::corrupt, "decrypt ghost", {}, "a part has a wrong size");
    auto& coded = stream_->coded;
    coded.resize(length + extra);
    GHOST_TRY(inner_->read_all(coded.data(), coded.size()));
    unsigned char mark = 0;
    if (crypto_secretstream_xchacha20poly1305_pull(
            &stream_->state, reinterpret_cast<unsigned char*>(slot.raw.data()), nullptr, &mark,
            reinterpret_cast<const unsigned char*>(coded.data()), coded.size(),
            reinterpret_cast<const unsigned char*>(&length), sizeof length) != 0)
        return slot.number == 0
                   ? make_error(Code::refused, "decrypt ghost", {}, "wrong key, or it is damaged")
                   : make_error(Code::corrupt, "decrypt ghost", {},
                                fmt::format("MiB {} is damaged", slot.number));
    slot.size = length;
    if (mark != crypto_secretstream_xchacha20poly1305_TAG_FINAL) {
        if (length == 0) return make_error(Code::corrupt, "decrypt ghost", {}, "an empty part");
        return true;
    }
    char more = 0;
    auto rest = inner_->read(&more, 1);
    if (!rest) return rest.error();
    if (length != 0 || *rest != 0)
        return make_error(Code::corrupt, "decrypt ghost", {}, "something follows the end");
    return false;
}

}  // namespace ghost::core
