// SPDX-License-Identifier: BSD-3-Clause
// The doorway of a listener: before somebody has proved who he is, he costs next to nothing.
//
// Who has connected is a *stranger* until whoever listens says that he is none. There are few
// places for strangers. Where all are taken the next one gets the place of another: of the address
// that has most of them, the oldest, first of those that have said nothing yet. So a hostile
// machine crowds out itself. A greeting has one deadline, however its bytes come. The listener is
// not waited at while there is no place, for a moment after more have come than a program has time
// for, and for a while when descriptors have run out: it stays readable then, and whoever waits
// for it would spin.
//
//     while (auto came = door.accept(listener.get(), now)) {
//         const uint64_t id = …;                      // of the connection, which the caller keeps
//         if (auto out = door.enter(id, came->from, now)) drop(*out);
//     }
//     watch(listener, door.is_open(now));             // again at door.wakes_at(now)
//     for (uint64_t id : door.late(now)) drop(id);    // and leave(id) for all that are dropped
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/fd.hpp"

namespace ghost {

// One thread. Knows no descriptor but while it accepts.
class Doorway {
  public:
    struct Limits {
        size_t most = 32;                 // strangers at once
        int64_t greeting_us = 2'000'000;  // from accept() until he has proved himself
        // So long a place is kept: of one who has said nothing, and of one whose first words were
        // right, though they may be recorded ones.
        int64_t mute_us = 0;
        int64_t spoken_us = 100'000;
        int64_t most_a_second = 4096;  // that are let in
    };
    // The address of a connection's other end, without the port. All zeros: of this node.
    using Origin = std::array<uint8_t, 16>;
    struct Arrived {
        Fd fd;  // non-blocking, closed on exec
        Origin from{};
    };

    Doorway() : Doorway(Limits{}) {}
    explicit Doorway(const Limits& limits) : limits_(limits) {}

    // The next one who waits at the listener; none if nobody does, or nobody is let in now.
    std::optional<Arrived> accept(int listener, int64_t now);
    // He is a stranger from now on. Whose place he got, if all were taken.
    [[nodiscard]] std::optional<uint64_t> enter(uint64_t id, const Origin& from, int64_t now);
    // What he has said is right, but may be a recording.
    void spoke(uint64_t id);
    // He has proved himself, or has gone.
    void leave(uint64_t id);
    void clear() { strangers_.clear(); }

    bool is_open(int64_t now);
    // Strangers whose time is over.
    std::vector<uint64_t> late(int64_t now) const;
    // When late() or is_open() will say something else; 0: not by the passing of time.
    int64_t wakes_at(int64_t now);
    size_t strangers() const { return strangers_.size(); }

  private:
    struct Stranger {
        uint64_t id = 0;
        Origin from{};
        int64_t since = 0;
        bool spoken = false;
    };
    const Stranger& weakest() const;
    int64_t kept_until(const Stranger& stranger) const;
    void refill(int64_t now);

    static constexpr int64_t saved_us = 250'000;  // so much of a second may come at once

    Limits limits_;
    std::vector<Stranger> strangers_;  // oldest first
    int64_t budget_us_ = saved_us;     // time saved for those who come, each takes a part
    int64_t refilled_at_ = 0;
    int64_t rests_until_ = 0;
};

// Of a listener for connections by TCP whose other end speaks first: who says nothing stays with
// the kernel for so long, and is not even accepted (tcp(7), TCP_DEFER_ACCEPT).
void accept_only_who_speaks(int listener, int seconds = 1);

}  // namespace ghost
