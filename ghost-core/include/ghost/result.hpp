// SPDX-License-Identifier: BSD-3-Clause
// What a call of ghost.hpp or kernet.hpp gives: a value, or why there is none.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ghost {
inline namespace v2 {

// Why a call failed: errno, and what the library says of it at that time.
template <const char* (*error)()>
struct FailureOf {
    int code = 0;
    std::string text;
    static FailureOf of_call() {
        const int code = errno;
        return {code, error()};
    }
};

template <typename T, typename Failure>
class [[nodiscard]] ResultOf {
  public:
    ResultOf(T value) : value_(std::move(value)) {}              // NOLINT: implicit
    ResultOf(Failure failure) : failure_(std::move(failure)) {}  // NOLINT: implicit
    explicit operator bool() const { return value_.has_value(); }
    T& operator*() { return *value_; }
    const T& operator*() const { return *value_; }
    T* operator->() { return &*value_; }
    const T* operator->() const { return &*value_; }
    const Failure& failure() const { return failure_; }

  private:
    std::optional<T> value_;
    Failure failure_;
};

}  // namespace v2
}  // namespace ghost
