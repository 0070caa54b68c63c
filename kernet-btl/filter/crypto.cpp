// SPDX-License-Identifier: BSD-3-Clause
// Filter `crypto`: every message sealed by an AEAD of libsodium, for its place in its stream only.
//
// A sealed message: 16 bytes salt, 8 bytes counter, the bytes, 16 bytes authentication. Each
// direction of each stream has a key of its own in each life of the job, made from the job's
// secret. The nonce is salt and counter. Never twice the same: a process that is continued from a
// snapshot counts again where another one has counted before, with the same key, so that every
// continuation draws a new salt (wakeup) before it seals anything; what was sealed before stays as
// it is and is sent again as it is. The place (who, to whom, number, tag, part) is authenticated,
// so that no frame can be put in another's place. Frames arrive in their order, those of an earlier
// life first: with the first one of a life the keys of all before it are forgotten.
#include <algorithm>
#include <cstring>
#include <list>
#include <sodium.h>

#include "kernet-btl/filter/builtin.hpp"

namespace kernet::filter {

namespace {

constexpr size_t salt_size = 16;
constexpr size_t counter_size = 8;
constexpr size_t nonce_size = salt_size + counter_size;
constexpr size_t overhead = nonce_size + 16;

using Key = std::array<uint8_t, 32>;
using Place = std::array<uint8_t, 18>;

Place place_of(const MessageId& id) {
    Place place;
    std::memcpy(place.data(), &id.from, 4);
    std::memcpy(place.data() + 4, &id.to, 4);
    std::memcpy(place.data() + 8, &id.number, 8);
    place[16] = id.tag;
    place[17] = static_cast<uint8_t>(id.part);
    return place;
}

Key derive(const Key& key, const uint8_t* text, size_t size) {
    Key out;
    crypto_generichash(out.data(), out.size(), text, size, key.data(), key.size());
    return out;
}

Key key_of(const SocketId& socket, const char* cipher, uint32_t from, uint32_t to) {
    const std::string text = std::string("kernet filter ") + cipher + " job " + socket.job + "/" +
                             socket.life + " from " + std::to_string(from) + " to " +
                             std::to_string(to);
    return derive(socket.secret, reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

// The ciphers: one object for one direction. `nonce` is salt and counter; out has room for the
// authentication too, in has it when opening.
class XChaCha {
  public:
    static constexpr const char* name = "xchacha20poly1305";
    static Status available() { return {}; }

    explicit XChaCha(const Key& key) : key_(key) {}
    ~XChaCha() { sodium_memzero(key_.data(), key_.size()); }

    void seal(const uint8_t* nonce, const Place& place, const uint8_t* in, size_t size,
              uint8_t* out) {
        static_assert(nonce_size == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
        static_assert(overhead == nonce_size + crypto_aead_xchacha20poly1305_ietf_ABYTES);
        crypto_aead_xchacha20poly1305_ietf_encrypt(out, nullptr, in, size, place.data(),
                                                   place.size(), nullptr, nonce, key_.data());
    }
    bool open(const uint8_t* nonce, const Place& place, const uint8_t* in, size_t size,
              uint8_t* out) {
        return crypto_aead_xchacha20poly1305_ietf_decrypt(out, nullptr, nullptr, in, size,
                                                          place.data(), place.size(), nonce,
                                                          key_.data()) == 0;
    }

  private:
    Key key_;
};

// Its nonces are too short to be drawn at random; so, as XChaCha does, every salt makes a key of
// its own, under which the counter is the nonce.
class Aes {
  public:
    static constexpr const char* name = "aes256gcm";
    static Status available() {
        if (crypto_aead_aes256gcm_is_available()) return {};
        return ghost::because(ghost::Code::unsupported,
                              "this processor has no AES and carry-less multiplication");
    }

    explicit Aes(const Key& key) : key_(key) {}
    ~Aes() {
        sodium_memzero(key_.data(), key_.size());
        sodium_memzero(&expanded_, sizeof expanded_);
    }

    void seal(const uint8_t* nonce, const Place& place, const uint8_t* in, size_t size,
              uint8_t* out) {
        static_assert(overhead == nonce_size + crypto_aead_aes256gcm_ABYTES);
        expand(nonce);
        crypto_aead_aes256gcm_encrypt_afternm(out, nullptr, in, size, place.data(), place.size(),
                                              nullptr, count(nonce).data(), &expanded_);
    }
    bool open(const uint8_t* nonce, const Place& place, const uint8_t* in, size_t size,
              uint8_t* out) {
        expand(nonce);
        return crypto_aead_aes256gcm_decrypt_afternm(out, nullptr, nullptr, in, size, place.data(),
                                                     place.size(), count(nonce).data(),
                                                     &expanded_) == 0;
    }

  private:
    using Count = std::array<uint8_t, crypto_aead_aes256gcm_NPUBBYTES>;
    static Count count(const uint8_t* nonce) {
        Count out{};
        std::memcpy(out.data() + out.size() - counter_size, nonce + salt_size, counter_size);
        return out;
    }
    void expand(const uint8_t* salt) {
        if (expanded_for_any_ && std::memcmp(salt_.data(), salt, salt_size) == 0) return;
        std::memcpy(salt_.data(), salt, salt_size);
        Key key = derive(key_, salt, salt_size);
        crypto_aead_aes256gcm_beforenm(&expanded_, key.data());
        sodium_memzero(key.data(), key.size());
        expanded_for_any_ = true;
    }

    Key key_;
    std::array<uint8_t, salt_size> salt_{};
    bool expanded_for_any_ = false;
    crypto_aead_aes256gcm_state expanded_;
};

template <typename Cipher>
class Crypto final : public Filter {
  public:
    explicit Crypto(const SocketId& socket)
        : out_(key_of(socket, Cipher::name, socket.rank, socket.peer)) {
        in_.emplace_back(key_of(socket, Cipher::name, socket.peer, socket.rank));
        draw();
    }

    size_t bound(size_t size) const override { return size + overhead; }

    size_t encode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out) override {
        if (++counter_ == 0) draw();
        std::memcpy(out, salt_.data(), salt_size);
        std::memcpy(out + salt_size, &counter_, counter_size);
        out_.seal(out, place_of(id), in, size, out + nonce_size);
        return size + overhead;
    }

    Result<size_t> decode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                          size_t room) override {
        if (size < overhead || size - overhead > room || !opens(id, in, size, out)) {
            return ghost::make_error(ghost::Code::corrupt, "open the seal of filter crypto", {},
                                     "forged, changed or misplaced");
        }
        return size - overhead;
    }

    void wakeup() override { draw(); }
    void begin_life(const SocketId& socket) override {
        out_ = Cipher(key_of(socket, Cipher::name, socket.rank, socket.peer));
        in_.emplace_back(key_of(socket, Cipher::name, socket.peer, socket.rank));
    }

  private:
    bool opens(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out) {
        const auto opens_it = [&](Cipher& life) {
            return life.open(in, place_of(id), in + nonce_size, size - nonce_size, out);
        };
        const auto found = std::ranges::find_if(in_, opens_it);
        if (found == in_.end()) return false;
        in_.erase(in_.begin(), found);
        return true;
    }
    void draw() {
        randombytes_buf(salt_.data(), salt_.size());
        counter_ = 0;
    }

    Cipher out_;
    std::list<Cipher> in_;  // of lives of which frames may still come, the newest last
    std::array<uint8_t, salt_size> salt_{};
    uint64_t counter_ = 0;
};

template <typename Cipher>
class CryptoRecipe final : public Recipe {
  public:
    std::string name() const override { return std::string("crypto=") + Cipher::name; }
    Status prepare() override {
        if (sodium_init() < 0) return ghost::make_error(ghost::Code::internal, "start libsodium");
        return Cipher::available();
    }
    std::unique_ptr<Filter> make(const SocketId& socket) const override {
        return std::make_unique<Crypto<Cipher>>(socket);
    }
    bool seals() const override { return true; }
};

}  // namespace

Made make_crypto(const std::string& option) {
    if (option.empty() || option == XChaCha::name)
        return Made(std::make_unique<CryptoRecipe<XChaCha>>());
    if (option == Aes::name) return Made(std::make_unique<CryptoRecipe<Aes>>());
    return ghost::because(ghost::Code::invalid, "ciphers are xchacha20poly1305 and aes256gcm");
}

}  // namespace kernet::filter
