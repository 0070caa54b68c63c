// SPDX-License-Identifier: BSD-3-Clause
// A handshake in progress; shared by the two halves of the connector.
#pragma once

#include "kernet-btl/transport/connector.hpp"
#include "kernet-btl/link/trial.hpp"

namespace kernet {

// How long the data side has to take a new link before it is done for it.
inline constexpr int64_t push_first_us = 1'000;
// Looks at a link in the time in which its peer's node is taken for dead.
inline constexpr int64_t looks_before_death = 4;

// Fixed ids in the epoll set; handshakes and watches have higher ones.
inline constexpr uint64_t id_timer = 1, id_bell = 2, id_tcp = 3, id_unix = 4;

struct Connector::Handshake {
    enum class Step { connecting, want_welcome, want_hello, want_confirm, measuring };
    uint64_t id = 0;
    Fd fd;
    wire::LinkKind kind = wire::LinkKind::tcp;
    wire::LinkKind came_by = wire::LinkKind::tcp;  // incoming: to which listener, shm or tcp
    Step step = Step::want_hello;
    bool incoming = true;
    bool has_peer = false;
    bool absent = false;  // nobody listens at the other end
    uint32_t rank = 0;    // valid if has_peer
    int64_t deadline = 0;
    wire::Hello hello;  // of ours, the purpose is there from the beginning
    wire::Welcome welcome;
    wire::Confirm confirm;
    size_t have = 0;               // bytes of the message being read
    Fd given;                      // came with CONFIRM
    std::unique_ptr<LinkEnd> end;  // ours of what is being made, as soon as there is one
    std::unique_ptr<Trial> trial;  // step measuring
    bool tried = false;            // what came of it is written down

    bool is_trial() const { return hello.purpose == wire::Purpose::trial; }
};

}  // namespace kernet
