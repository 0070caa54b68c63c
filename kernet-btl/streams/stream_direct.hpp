// SPDX-License-Identifier: BSD-3-Clause
// A socket of a DIRECT stream: numbered messages to the one other socket, kept until taken there.
#pragma once

#include "kernet-btl/streams/stream_socket.hpp"

namespace kernet {

class DirectSocket final : public StreamSocket {
  public:
    DirectSocket(StreamHost& host, const Entry& entry, uint16_t number, size_t limit)
        : StreamSocket(host, entry, number, limit), other_(static_cast<uint16_t>(1 - number)) {}

    void send(BodyPtr body) override;
    BodyPtr take() override;
    bool readable() const override { return !inbox_.empty(); }
    void tick() override;
    Farewells farewells(bool) const override { return {}; }
    nlohmann::json save() const override;
    bool restore(const nlohmann::json& state) override;

  private:
    void mapped() override;
    void received(const wire::StreamHeader& header, BodyPtr body) override;
    void resume_all() override { say_where_we_are(); }
    void say_where_we_are();
    void resume(uint64_t seen);
    void acknowledged(uint64_t number);
    void acknowledge();

    const uint16_t other_;
    uint32_t other_incarnation_ = 0;  // attached there in the last map; 0: not attached
    bool resumed_ = false;            // it has said what it has
    // Sending: numbers sent_ - kept_.size() + 1 to sent_ are kept.
    std::deque<BodyPtr> kept_;
    uint64_t sent_ = 0;
    // Receiving: the last inbox_.size() of received_ have not been taken.
    std::deque<BodyPtr> inbox_;
    uint64_t received_ = 0;
    uint64_t told_ = 0;  // last acknowledgement
    size_t untold_bytes_ = 0;
};

}  // namespace kernet
