// SPDX-License-Identifier: BSD-3-Clause
// Errors are values: every fallible call in the project returns Result<T>.
// Nothing throws across a component boundary; see ARCHITECTURE.md, "Errors".
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ghost {

// What kind of failure it is; decides the exit status and what the user is told to do.
enum class Code {
    invalid,      // the caller's request or input is wrong (usage, corrupt data)
    refused,      // possible in general, not now or not here; nothing was changed
    busy,         // the same request may work a moment later
    not_found,    // no such rank, node, job, file
    unsupported,  // this machine, kernel or library cannot do it
    io,           // an operating system call failed; see sys
    timeout,      // the time limit of the step ran out
    peer_lost,    // the other party of a conversation is gone
    corrupt,      // a checksum or a format rule does not hold
    internal,     // a bug of ours
};

// One failure: what was tried, on which object, and why it could not be: in words, by errno or
// both. Who decides by it asks `code` or `sys`; words are for people only.
struct Error {
    Code code = Code::internal;
    std::string tried = {};   // "connect to node agent"; empty if `why` says all
    std::string object = {};  // "gn3:4711", "rank 1", a path
    std::string why = {};     // "it hung up"
    int sys = 0;              // errno value, 0: none

    // "cannot connect to node agent gn3:4711: it hung up (Connection reset by peer)", without what
    // is not known; if nothing was tried "rank 1: it has ended". The only place that makes a
    // sentence of an error.
    std::string message() const;
};

// Builds an Error from the current errno.
Error sys_error(std::string tried, std::string object = {}, Code code = Code::io);
Error sys_error_of(int sys, std::string tried, std::string object = {}, Code code = Code::io);
Error make_error(Code code, std::string tried, std::string object = {}, std::string why = {});
// A reason that stands for itself.
Error because(Code code, std::string why, std::string object = {});

// A value or an Error. Test with ok()/operator bool before taking the value.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }
    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }
    const Error& error() const { return std::get<1>(state_); }

  private:
    std::variant<T, Error> state_;
};

// Success without a value.
template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit

    bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    const Error& error() const { return *error_; }

  private:
    std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace ghost

// Returns the error of `expr` from the enclosing function, if there is one.
#define GHOST_TRY(expr)                                                              \
    do {                                                                             \
        if (auto&& ghost_try_ = (expr); !ghost_try_.ok()) return ghost_try_.error(); \
    } while (0)
