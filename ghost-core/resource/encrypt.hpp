// SPDX-License-Identifier: BSD-3-Clause
// Encrypts what goes to another resource, with a key: nobody without it reads or changes it
// unnoticed. libsodium's secretstream (XChaCha20-Poly1305), a message for each MiB; leaving out,
// reordering and cutting off are noticed.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "ghost-core/resource/units.hpp"

namespace ghost::core {

// 32 secret bytes; wiped when it goes.
class SecretKey {
  public:
    // From a file: 32 bytes, or 64 hexadecimal digits and a newline. refused: others may read the
    // file; invalid: no key.
    static Result<std::shared_ptr<SecretKey>> load(const std::string& path);
    explicit SecretKey(const std::array<unsigned char, 32>& bytes) : bytes_(bytes) {}
    ~SecretKey();
    SecretKey(const SecretKey&) = delete;
    SecretKey& operator=(const SecretKey&) = delete;
    const unsigned char* bytes() const { return bytes_.data(); }

  private:
    std::array<unsigned char, 32> bytes_;
};

class EncryptResource : public UnitResource {
  public:
    // Reading with another key is Code::refused.
    EncryptResource(std::unique_ptr<Resource> inner, Use use, std::shared_ptr<SecretKey> key);
    ~EncryptResource() override;
    // Whether a resource that begins with these 8 bytes is an encrypted one.
    static bool is_mine(const char* start);

    ResourceClass class_id() const override { return ResourceClass::encrypt; }
    void interrupt() override { inner_->interrupt(); }

  private:
    Status open() override;
    void work(Slot&) override {}
    Status emit(Slot& slot) override;
    Result<bool> load(Slot& slot) override;
    Status close() override;
    Status message(const char* data, size_t size, unsigned char mark);

    std::unique_ptr<Resource> inner_;
    std::shared_ptr<SecretKey> key_;
    struct Stream;
    std::unique_ptr<Stream> stream_;
};

}  // namespace ghost::core
