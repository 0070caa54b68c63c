// SPDX-License-Identifier: BSD-3-Clause
// What ghostd lends to processes of ordinary users, and how they ask for it (docs/SECURITY.md,
// "ghostd"). One request and one answer a connection, each of a fixed size, in the machine's own
// byte order: both ends are on one node. No request names a process, a path, a user or a number:
// who asks the kernel says, and what he gets is the same for everybody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost {

inline constexpr const char* lender_socket = "/run/ghost/ghostd.sock";

enum class Loan : uint16_t {
    nothing,      // only to be told what there is
    space,        // a user name space of the asking user's
    userfaultfd,  // /dev/userfaultfd, open
};

struct LoanRequest {
    uint32_t magic;     // loan_magic
    uint16_t version;   // loan_version
    uint16_t what;      // Loan
    uint64_t reserved;  // 0
};
static_assert(sizeof(LoanRequest) == 16);

enum class Verdict : uint16_t {
    lent,        // the descriptor is beside the answer (none for Loan::nothing)
    busy,        // as many of this user's requests as may be are being served: ask again
    not_lent,    // not to anybody here
    not_to_you,  // root needs none; a user without a number of his own gets none
    too_many,    // this user has as many as he may have
    failed,      // `error` says why
    not_understood,
};

struct LoanAnswer {
    uint32_t magic;
    uint16_t version;
    uint16_t verdict;  // Verdict
    uint32_t lends;    // bit n: Loan n is lent here
    int32_t error;     // an errno, 0: none
};
static_assert(sizeof(LoanAnswer) == 16);

inline constexpr uint32_t loan_magic = 0x67736f68;
inline constexpr uint16_t loan_version = 1;

inline constexpr uint32_t loan_bit(Loan what) {
    return uint32_t{1} << static_cast<unsigned>(what);
}

// Of bytes that a stranger has sent: invalid unless they are a whole request of this version that
// asks for something there is.
Result<Loan> read_loan_request(const void* bytes, size_t size);
// The same of what claims to be the lender's answer.
Result<LoanAnswer> read_loan_answer(const void* bytes, size_t size);

LoanRequest loan_request(Loan what);
LoanAnswer loan_answer(Verdict verdict, uint32_t lends, int error = 0);

// Asks ghostd, which has to be root's, with patience where it is busy. not_found: there is none
// here; unsupported: it does not lend that; refused and others: `why` has its reason.
Result<Fd> borrow(Loan what);
// What it lends, as loan_bit()s. not_found: there is none.
Result<uint32_t> what_is_lent();

}  // namespace ghost
