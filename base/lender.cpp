// SPDX-License-Identifier: BSD-3-Clause
#include "base/lender.hpp"

#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/await.hpp"
#include "base/clock.hpp"
#include "base/descriptor_message.hpp"
#include "base/user_space.hpp"

namespace ghost {
namespace {

constexpr int64_t patience_us = 10'000'000;
constexpr useconds_t retry_us = 20'000;
constexpr int answer_ms = 5000;

struct Answered {
    LoanAnswer said{};
    Fd fd;
};

Error no_lender() {
    return sys_error("ask ghostd at", lender_socket,
                     errno == ENOENT || errno == ECONNREFUSED ? Code::not_found
                     : errno == EAGAIN                        ? Code::busy
                                                              : Code::io);
}

// In a user name space root is shown as nobody.
bool is_roots(uid_t user) {
    constexpr uid_t unmapped = 65534;
    return user == 0 || (user == unmapped && ::geteuid() != 0 && has_user_space());
}

Result<Fd> reach() {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!fd) return sys_error("make a socket");
    // of connect(): with a full backlog it would wait for ever
    const timeval limit{2, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strncpy(to.sun_path, lender_socket, sizeof to.sun_path - 1);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) return no_lender();
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return no_lender();
    if (!is_roots(who.uid))
        return make_error(Code::refused, "ask ghostd at", lender_socket, "it is not root's");
    return fd;
}

// busy: it has closed the connection, as it does with those who are too many.
Result<Answered> ask_once(Loan what) {
    auto fd = reach();
    if (!fd) return fd.error();
    const LoanRequest request = loan_request(what);
    if (::send(fd->get(), &request, sizeof request, MSG_NOSIGNAL) < 0 && errno != EPIPE)
        return no_lender();
    if (!await_readable(fd->get(), answer_ms))
        return make_error(Code::timeout, "ask ghostd at", lender_socket, "it does not answer");
    char bytes[sizeof(LoanAnswer) + 1];
    auto got = receive_with_descriptor(fd->get(), bytes, sizeof bytes);
    if (got.size <= 0)
        return make_error(Code::busy, "ask ghostd at", lender_socket, "it takes no more requests");
    Answered out;
    out.fd = std::move(got.fd);
    auto said = read_loan_answer(bytes, static_cast<size_t>(got.size));
    if (!said) return said.error();
    out.said = *said;
    if (static_cast<Verdict>(out.said.verdict) == Verdict::busy)
        return make_error(Code::busy, "ask ghostd at", lender_socket, "it takes no more requests");
    return out;
}

Result<Answered> ask(Loan what) {
    const int64_t limit = monotonic_us() + patience_us;
    for (;;) {
        auto answer = ask_once(what);
        if (answer || answer.error().code != Code::busy || monotonic_us() > limit) return answer;
        ::usleep(retry_us);
    }
}

const char* words(Verdict verdict) {
    switch (verdict) {
        case Verdict::not_lent:
            return "it lends none here";
        case Verdict::not_to_you:
            return "it lends none to this user";
        case Verdict::too_many:
            return "this user has as many as he may have";
        case Verdict::not_understood:
            return "it is of another version";
        default:
            return "it could not";
    }
}

}  // namespace

LoanRequest loan_request(Loan what) {
    return {loan_magic, loan_version, static_cast<uint16_t>(what), 0};
}

LoanAnswer loan_answer(Verdict verdict, uint32_t lends, int error) {
    return {loan_magic, loan_version, static_cast<uint16_t>(verdict), lends, error};
}

Result<Loan> read_loan_request(const void* bytes, size_t size) {
    const auto wrong = make_error(Code::invalid, "understand a request");
    LoanRequest request{};
    if (size != sizeof request) return wrong;
    std::memcpy(&request, bytes, sizeof request);
    if (request.magic != loan_magic || request.version != loan_version || request.reserved != 0 ||
        request.what > static_cast<uint16_t>(Loan::userfaultfd))
        return wrong;
    return static_cast<Loan>(request.what);
}

Result<LoanAnswer> read_loan_answer(const void* bytes, size_t size) {
    LoanAnswer answer{};
    if (size == sizeof answer) std::memcpy(&answer, bytes, sizeof answer);
    if (answer.magic != loan_magic || answer.version != loan_version ||
        answer.verdict > static_cast<uint16_t>(Verdict::not_understood) || answer.error < 0)
        return make_error(Code::corrupt, "understand the answer of ghostd at", lender_socket);
    return answer;
}

Result<Fd> borrow(Loan what) {
    auto answer = ask(what);
    if (!answer) return answer.error();
    const auto verdict = static_cast<Verdict>(answer->said.verdict);
    if (verdict == Verdict::lent && answer->fd) return std::move(answer->fd);
    Error out = make_error(verdict == Verdict::not_lent ? Code::unsupported : Code::refused,
                           "borrow of ghostd at", lender_socket, words(verdict));
    out.sys = answer->said.error;
    return out;
}

Result<uint32_t> what_is_lent() {
    auto answer = ask(Loan::nothing);
    if (!answer) return answer.error();
    return answer->said.lends;
}

}  // namespace ghost
