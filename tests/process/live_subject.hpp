// SPDX-License-Identifier: BSD-3-Clause
// What live_subject and whoever watches it share: a file mapped by both.
#pragma once

#include <atomic>
#include <cstdint>

namespace ghost::core::test {

inline constexpr uint64_t beats_kept = 1 << 20;

enum class Ask : uint64_t {
    nothing,
    check,    // the whole of it: replays every write
    thread,   // one more thread
    file,     // one more descriptor
    named,    // a file of its own, FILE.named, open, by two descriptors
    unnamed,  // closed and removed again
    // In its place, by the same name and numbers:
    another,    // one that was made anew
    narrowed,   // open for reading only
    split,      // each descriptor opened by itself
    kept,       // kept in exec(2)
    handler,    // a handler for SIGUSR1
    timer,      // setitimer(2)
    child,      // a process, which waits
    childless,  // killed and reaped
    stop        // ends with status 0 (7 if something is wrong)
};

struct Beats {
    std::atomic<Ask> ask;
    std::atomic<uint64_t> answer;  // bits of what is wrong, after Ask::check
    std::atomic<uint64_t> ready;
    std::atomic<uint64_t> count;
    std::atomic<uint64_t> written;  // pages, a page written again counted again
    // Of the last page that was wrong: its address, what it should and what it does begin with.
    std::atomic<uint64_t> wrong_at, wrong_wanted, wrong_found, wrong_pages, wrong_words, wrong_done;
    struct Beat {
        uint64_t ns, number;  // CLOCK_MONOTONIC as the subject sees it; 0, 1, 2, …
    } beats[beats_kept];
};

}  // namespace ghost::core::test
