// SPDX-License-Identifier: BSD-3-Clause
// How two ends of a connection for a ghost come to know each other, and how what they say then is
// sealed. No input or output of its own: resource/network.hpp carries the bytes.
//
// Each end sends a Hello: a nonce, the public part of an X25519 key made for this connection alone,
// and the ciphers it has. Each proves to know secret and token by a MAC over both hellos (keyed
// BLAKE2b). The keys of the two directions are made of the secret and of what the two X25519 keys
// agree on: who records a connection and learns the secret later reads nothing.
//
// What follows is records: 4 bytes length (the highest bit: the direction's last one), the bytes
// sealed, 16 bytes authentication. A record's number is its nonce, its length is authenticated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace ghost::core {

enum class Side { source, target };

inline constexpr uint32_t cipher_chacha20 = 1;  // ChaCha20-Poly1305: everybody has it
inline constexpr uint32_t cipher_aes = 2;       // AES-256-GCM: processors that have AES

struct Hello {
    std::array<unsigned char, 8> mark{};
    std::array<unsigned char, 32> nonce{};
    std::array<unsigned char, 32> key{};  // X25519, public
    uint32_t ciphers = 0;
    uint32_t reserved = 0;
};
static_assert(sizeof(Hello) == 80);

using Proof = std::array<unsigned char, 32>;
using SealKey = std::array<unsigned char, 32>;

// An X25519 key that is forgotten with the connection it was made for.
class PassingKey {
  public:
    PassingKey();
    ~PassingKey();
    PassingKey(const PassingKey&) = delete;
    PassingKey& operator=(const PassingKey&) = delete;

    const std::array<unsigned char, 32>& shown() const { return shown_; }
    // What only the two agree on; false: the other one's is no key.
    bool agree(const std::array<unsigned char, 32>& theirs,
               std::array<unsigned char, 32>& out) const;

  private:
    std::array<unsigned char, 32> own_{}, shown_{};
};

// Of one connection, for one end. sodium_init() has been called.
class Greeting {
  public:
    // `ciphers`: what this end has; 0: whatever this processor has.
    Greeting(Side self, std::string token, const std::string& secret,
             std::shared_ptr<const PassingKey> key = std::make_shared<PassingKey>(),
             uint32_t ciphers = 0);
    ~Greeting();
    Greeting(const Greeting&) = delete;
    Greeting& operator=(const Greeting&) = delete;

    const Hello& hello() const { return mine_; }
    // The other end's. False: it is none of ours, or of another version.
    bool take(const Hello& theirs);
    // After take(): what this end shows, and whether what the other end shows is right.
    Proof proof() const { return proof_of(self_); }
    bool proves(const Proof& theirs) const;
    // After that: what the keys are made of. False: the other end has shown no key.
    bool agree() { return key_->agree(theirs_.key, agreed_); }
    uint32_t cipher() const;
    SealKey key_of(Side writer) const;
    Side self() const { return self_; }

  private:
    Proof proof_of(Side side) const;
    SealKey make(const char* label, bool agreed) const;

    const Side self_;
    const std::string token_;
    SealKey secret_{};  // its hash
    const std::shared_ptr<const PassingKey> key_;
    std::array<unsigned char, 32> agreed_{};
    Hello mine_, theirs_;
};

// One direction of a connection: numbers records and either seals or opens them. One thread.
class Seal {
  public:
    static constexpr size_t head_bytes = 4, tag_bytes = 16;
    static constexpr size_t overhead = head_bytes + tag_bytes;
    static constexpr size_t limit = 128 << 10;  // bytes in a record

    enum class Use { close, open };

    // Throws std::bad_alloc.
    Seal(uint32_t cipher, const SealKey& key, Use use);
    ~Seal();
    Seal(const Seal&) = delete;
    Seal& operator=(const Seal&) = delete;

    // A whole record of `size` bytes (at most limit) at `out`; `from` may be out + head_bytes.
    // False: what is at `out` is no record, and must not be sent.
    [[nodiscard]] bool close(const char* from, size_t size, bool last, char* out);

    struct Head {
        size_t size = 0;
        bool last = false;
    };
    // What the first head_bytes of a record say; nothing of it is known to be true.
    static Head head_of(const char* record);
    // The bytes of the next record, whose head has been looked at, to `to`, which may be where they
    // are. False: this is not the record that was sealed as the next one, or an earlier one was
    // not.
    bool open(const char* record, char* to);

  private:
    struct Cipher;
    std::array<unsigned char, 12> nonce();
    bool pass(const void* head, const char* from, size_t size, char* to);
    bool open_next(const char* record, char* to);

    std::unique_ptr<Cipher> cipher_;
    uint64_t number_ = 0;
    bool broken_ = false;
};

}  // namespace ghost::core
