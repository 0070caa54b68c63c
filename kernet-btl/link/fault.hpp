// SPDX-License-Identifier: BSD-3-Clause
// A packet driver that does to what is sent what a bad network does. For tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

// Chances in 1/10,000 for each packet sent.
struct FaultPlan {
    uint32_t seed = 1;
    uint32_t drop = 0;
    uint32_t duplicate = 0;
    uint32_t reorder = 0;  // kept back until a few more have been sent
    uint32_t delay = 0;    // kept back for up to delay_us
    uint32_t corrupt = 0;  // one bit
    uint32_t cut = 0;      // the link breaks
    int64_t delay_us = 1000;

    bool any() const { return drop || duplicate || reorder || delay || corrupt || cut; }
    // "drop=100,corrupt=20,seed=7": as the fields above. Code::invalid, with what there is.
    static Result<FaultPlan> parse(const std::string& text);
    // Of GHOST_LINK_FAULTS; no faults if that is not there. Code::invalid: a run that is to have
    // faults and has none would prove nothing.
    static Result<FaultPlan> from_environment();
};

std::unique_ptr<PacketDriver> make_faulty(std::unique_ptr<PacketDriver> driver,
                                          const FaultPlan& plan);

}  // namespace kernet
