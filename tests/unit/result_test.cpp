// SPDX-License-Identifier: BSD-3-Clause
// How an error is said.
#include "base/result.hpp"

#include <cerrno>
#include <gtest/gtest.h>

namespace ghost {
namespace {

TEST(Error, SentenceHasWhatIsKnown) {
    EXPECT_EQ(make_error(Code::busy, "lock", "file a").message(), "cannot lock file a");
    EXPECT_EQ(make_error(Code::busy, "lock", "file a", "job 3 has it").message(),
              "cannot lock file a: job 3 has it");
    EXPECT_EQ(make_error(Code::invalid, "merge ghosts", {}, "there is none").message(),
              "cannot merge ghosts: there is none");
    EXPECT_EQ(sys_error_of(ENOENT, "open", "/a").message(),
              "cannot open /a: No such file or directory");
    EXPECT_EQ((Error{Code::peer_lost, "greet", "n:1", "it hung up", ECONNRESET}.message()),
              "cannot greet n:1: it hung up (Connection reset by peer)");
}

TEST(Error, ReasonMayStandForItself) {
    EXPECT_EQ(because(Code::busy, "a signal is pending").message(), "a signal is pending");
    EXPECT_EQ(because(Code::busy, "it has a timer", "process 7").message(),
              "process 7: it has a timer");
}

TEST(Error, SystemErrorIsThatOfTheLastCall) {
    errno = EACCES;
    const Error error = sys_error("open", "/a", Code::refused);
    EXPECT_EQ(error.code, Code::refused);
    EXPECT_EQ(error.sys, EACCES);
    EXPECT_EQ(error.message(), "cannot open /a: Permission denied");
}

}  // namespace
}  // namespace ghost
