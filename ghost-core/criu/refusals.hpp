// SPDX-License-Identifier: BSD-3-Clause
// Why something of a tree can neither move nor be saved, and what to do: the one table of both, of
// which docs/GUIDE.md ("Messages") explains each row. A Refusal is made of its rows alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <string>

#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

enum class Reason : uint8_t {
    private_huge_pages,
    eventfd_semaphore,
    unknown_object,
    block_device,
    device,
    own_terminal,
    outer_terminal,
    outer_end,
    service,  // its name, its cure
    outer_process,
    ended_process,
    other_thread,
    other_proc,
    other_mounts,
    message_queue,
    secret_memory,
    renamed,
    no_descriptor,
    exclusive_lock,
    node_object,  // ipcrm's option, its number
    shared_memory,
    old_criu,
    outer_space,
    inner_space,
    other_user,
    user_connection,
    user_filter,
    user_watch,
    user_marks,
    user_mapping,
    user_unreadable,
    user_shared_memory,
    user_undumpable,
    user_memfd,
    end_,
};

// Texts of a reason, for fmt: both get all that it is made with.
struct ReasonTexts {
    Reason reason;
    const char* why;
    const char* cure;
};
const ReasonTexts& texts_of(Reason reason);

class Refusal {
  public:
    Refusal() = default;  // none: it can
    template <typename... Details>
    Refusal(Reason reason, const Details&... details) {
        fill(reason, fmt::make_format_args(details...));
    }
    explicit operator bool() const { return !text_.empty(); }
    // "it is a device of this node; close it"
    const std::string& text() const { return text_; }
    // "descriptor 3 /dev/sda cannot move: …"
    std::string of(const std::string& object) const;
    // "rank 1's process 1001 (app): descriptor 3 … cannot move: …"; without `who` "process 1001 …".
    std::string of(const std::string& who, pid_t inner, const std::string& program,
                   const std::string& object) const;

  private:
    void fill(Reason reason, fmt::format_args details);

    std::string text_;
};

}  // namespace ghost::core
