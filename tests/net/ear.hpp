// SPDX-License-Identifier: BSD-3-Clause
// Somebody on a node's network who counts what goes between ranks, and looks for a text in it.
#pragma once

#include <cstdint>
#include <string>

#include "tests/net/lab.hpp"

namespace nettest {

// Bytes of packets, headers included, by what they are.
struct Heard {
    uint64_t tcp = 0;
    uint64_t udp = 0;
    uint64_t raw = 0;  // Ethernet frames of link netdevice
    bool found = false;
    std::string text;  // as it was said, for messages
    uint64_t all() const { return tcp + udp + raw; }
};

class Ear {
  public:
    // On all interfaces of the node but loopback, until so many bytes have gone by or, if there is
    // one, the text has been seen in a packet.
    Ear(Lab& lab, const std::string& node, uint64_t enough, const std::string& text = "");
    // Waits for that, as long as more comes within so many seconds. Nothing heard (all() is 0) if
    // it did not come.
    Heard finish(double seconds = 30);

  private:
    Background ear_;
};

}  // namespace nettest
