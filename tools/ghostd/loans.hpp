// SPDX-License-Identifier: BSD-3-Clause
// One request to ghostd, in a process of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/socket.h>

#include "base/fd.hpp"
#include "base/lender.hpp"

namespace ghost::lending {

// What is lent to whom.
struct Terms {
    uint32_t lends = loan_bit(Loan::space);
    size_t spaces = 1024;  // at most so many live ones of a user
};

// Of a list with commas, as loan_bit()s; 0 if it is wrong.
uint32_t loans_named(const std::string& list);

// Never waits. `loan` may be none.
void answer(int connection, const LoanAnswer& said, const Fd& loan);

// Reads the one request of a connection and answers it. The process ends by SIGALRM if that takes
// more than two seconds. `who`: the kernel's word for who has connected.
void serve(int connection, const ucred& who, const Terms& terms);

}  // namespace ghost::lending
