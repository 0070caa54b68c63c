// SPDX-License-Identifier: BSD-3-Clause
// How the job's secret comes to daemons that no launch agent of ours has started (batch systems).
//
// mpirun's public key is in the launch message; each daemon answers with one of its own; mpirun
// sends the secret encrypted for these two (libsodium's crypto_box: X25519, XSalsa20-Poly1305). Who
// only listens learns nothing by it. Neither side can tell whose key it has been sent.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "pmix-plugin/settings/job_secret.hpp"

namespace ghost::plugin {

// A pair of X25519's keys; the secret one is wiped.
class ExchangeKeys {
  public:
    ExchangeKeys();  // drawn
    // Always the same of one secret and life: mpirun's components have no other way to share them.
    explicit ExchangeKeys(const JobSecret& job);
    ~ExchangeKeys();
    ExchangeKeys(const ExchangeKeys&) = delete;
    ExchangeKeys& operator=(const ExchangeKeys&) = delete;

    std::string open_key() const;  // the public one, 64 hex digits
    // The other end's public key; invalid: it is none.
    Result<std::string> close(const std::string& theirs, std::string_view text) const;
    Result<std::string> open(const std::string& theirs, std::string_view closed) const;

  private:
    std::array<unsigned char, 32> public_{}, secret_{};
};

// mpirun's part.
class SecretGiver {
  public:
    explicit SecretGiver(JobSecret job);

    std::string key() const { return keys_.open_key(); }
    // What to answer a daemon that says this key. refused: it has the secret under another key.
    Result<std::string> give(uint32_t daemon, const std::string& key);

  private:
    const JobSecret job_;
    const ExchangeKeys keys_;
    std::map<uint32_t, std::string> given_;  // the key, by daemon
};

// A daemon's.
class SecretAsker {
  public:
    // givers_key: of the launch message.
    explicit SecretAsker(std::string givers_key) : givers_key_(std::move(givers_key)) {}

    std::string key() const { return keys_.open_key(); }
    Result<JobSecret> take(std::string_view answer) const;

  private:
    const std::string givers_key_;
    const ExchangeKeys keys_;
};

}  // namespace ghost::plugin
