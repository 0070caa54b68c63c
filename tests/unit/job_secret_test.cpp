// SPDX-License-Identifier: BSD-3-Clause
// The job's secret on its way to daemons, and the messages that they seal with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/fd.hpp"
#include "pmix-plugin/runtime/interface/message_seal.hpp"
#include "pmix-plugin/settings/job_secret.hpp"
#include "pmix-plugin/settings/secret_exchange.hpp"

namespace ghost::plugin {
namespace {

const JobSecret job{std::string(60, 'a') + "0123", "00ff00ff00ff00ff"};
using Words = std::vector<std::string>;

class KeptSecret : public testing::Test {
  protected:
    void TearDown() override { unsetenv(secret_place_variable); }
};

TEST_F(KeptSecret, IsFoundByThisProcessAndByItsChildren) {
    EXPECT_EQ(kept_secret().error().code, Code::not_found);
    ASSERT_TRUE(keep_secret(job).ok());
    const std::string place = getenv(secret_place_variable);
    EXPECT_EQ(place.find(job.secret), std::string::npos);
    ASSERT_TRUE(kept_secret().ok());
    EXPECT_EQ(kept_secret()->secret, job.secret);
    EXPECT_EQ(kept_secret()->life, job.life);
    EXPECT_EQ(secret_at(place)->secret, job.secret);  // again: from its begin
    const pid_t child = fork();
    if (child == 0) {
        const auto own = kept_secret();  // what it has inherited is not its own
        const auto parents = secret_at(place);
        _exit(!own.ok() && parents.ok() && parents->secret == job.secret ? 0 : 1);
    }
    int status = 1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST_F(KeptSecret, CannotBeChanged) {
    ASSERT_TRUE(keep_secret(job).ok());
    const std::string place = getenv(secret_place_variable);
    const int number = std::atoi(place.substr(place.rfind('/') + 1).c_str());
    EXPECT_EQ(write(number, "x", 1), -1);
    EXPECT_EQ(ftruncate(number, 0), -1);
    EXPECT_TRUE((fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
}

TEST(HandedOnSecret, IsOneLineAndNothingElse) {
    const std::string good = secret_line(job), upper = std::string(64, 'A') + " 00\n";
    for (const std::string& line : {good, good.substr(0, good.size() - 1), std::string(), upper,
                                    std::string("\n"), job.secret + "\n", "0" + good,
                                    good.substr(1), job.secret + " x\n", std::string(500, 'a')}) {
        int ends[2];
        ASSERT_EQ(pipe(ends), 0);
        const Fd out(ends[0]);
        Fd in(ends[1]);
        ASSERT_EQ(write(in.get(), line.data(), line.size()), static_cast<ssize_t>(line.size()));
        in.reset();
        const auto got = receive_secret(out.get(), 1000);
        EXPECT_EQ(got.ok(), line.substr(0, good.size() - 1) == good.substr(0, good.size() - 1))
            << line;
        EXPECT_TRUE(!got || got->secret + got->life == job.secret + job.life);
    }
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const Fd out(ends[0]), in(ends[1]);
    EXPECT_EQ(receive_secret(out.get(), 20).error().code, Code::timeout);
}

TEST_F(KeptSecret, LaunchAgentsAreTheUsersBehindOurs) {
    ASSERT_TRUE(keep_secret(job).ok());
    const std::string place = getenv(secret_place_variable), ours = "/x/ghost-rsh " + place + " ";
    EXPECT_EQ(launch_agent("/x/ghost-rsh", "sh -F a"), ours + "sh -F a");
    EXPECT_EQ(launch_agent("/x/ghost-rsh", "no-such-agent -a : sh -b"), ours + "sh -b");
    EXPECT_EQ(launch_agent("/x/ghost-rsh", "no-such : nor-this"), ours + "no-such");
    EXPECT_EQ(launch_agent("/x/ghost-rsh", "/y/ghost-rsh /proc/1/fd/4 sh -F a"), ours + "sh -F a");
    EXPECT_EQ(launch_agent("/x/ghost-rsh", ours + "sh"), ours + "sh");
}

TEST(LaunchWords, DaemonsKnowWhatToRead) {
    const Words daemon = {"ssh", "-F", "f", "node", "orted", "-mca", "ess_base_jobid", "7"};
    const auto words = launch_words(daemon, "/bin/bash");
    ASSERT_TRUE(words.has_value());
    EXPECT_EQ(*words, (Words{"ssh", "-x", "-F", "f", "node", "orted", "-mca", "ess_base_jobid", "7",
                             "-mca", "ghost_secret_descriptor", "0"}));
    // what a daemon says that starts others
    Words again = daemon;
    again.insert(again.begin() + 5, {"-mca", "ghost_secret_descriptor", "9"});
    EXPECT_EQ(launch_words(again, "/bin/bash"), words);
    const auto forwarded = launch_words({"ssh", "-X", "node", "ess_base_jobid"}, "");
    EXPECT_EQ(std::ranges::count(*forwarded, "-x"), 0);
    EXPECT_EQ(launch_words({"my-agent", "node", "ess_base_jobid"}, "")->at(1), "node");
    EXPECT_FALSE(launch_words({"ssh", "node", "echo $SHELL"}, "/bin/bash").has_value());
}

// They have no standard input when they read.
TEST(LaunchWords, DaemonsThatLeaveTheirTerminalReadAnotherDescriptor) {
    const Words daemon = {"ssh", "-x", "node", "orted", "--daemonize", "ess_base_jobid"};
    const auto words = launch_words(daemon, "/bin/bash");
    ASSERT_TRUE(words.has_value());
    EXPECT_EQ((Words{words->end() - 3, words->end()}),
              (Words{"ghost_secret_descriptor", "9", "9<&0"}));
    // some shells get it all in parentheses
    Words enclosed = daemon;
    enclosed.push_back(")");
    const auto inside = launch_words(enclosed, "/bin/sh");
    ASSERT_TRUE(inside.has_value());
    EXPECT_EQ((Words{inside->end() - 2, inside->end()}), (Words{"9<&0", ")"}));
    // csh would not understand it: they stay
    const auto in_csh = launch_words(daemon, "/bin/tcsh");
    ASSERT_TRUE(in_csh.has_value());
    EXPECT_EQ(in_csh->back(), "0");
    EXPECT_EQ(std::ranges::count(*in_csh, "--daemonize"), 0);
}

// --- asked for ---

TEST(SecretExchange, IsGivenToWhoAsks) {
    SecretGiver giver(job);
    EXPECT_EQ(giver.key(), SecretGiver(job).key());  // of every part of mpirun
    EXPECT_NE(giver.key(), SecretGiver({job.secret, "01"}).key());
    EXPECT_NE(giver.key(), SecretGiver({std::string(64, 'b'), job.life}).key());
    const SecretAsker one(giver.key()), two(giver.key());
    EXPECT_NE(one.key(), two.key());
    const auto answer = giver.give(1, one.key());
    ASSERT_TRUE(answer.ok()) << answer.error().message();
    EXPECT_EQ(answer->find(job.secret.substr(0, 8)), std::string::npos);
    const auto told = one.take(*answer);
    ASSERT_TRUE(told.ok()) << told.error().message();
    EXPECT_EQ(told->secret, job.secret);
    EXPECT_EQ(told->life, job.life);
    EXPECT_EQ(two.take(*answer).error().code, Code::refused);  // who has heard it
    EXPECT_EQ(SecretAsker(two.key()).take(*answer).error().code, Code::refused);
}

TEST(SecretExchange, ChangedAnswersAndBadKeysAreRefused) {
    SecretGiver giver(job);
    const SecretAsker one(giver.key());
    const auto answer = giver.give(1, one.key());
    ASSERT_TRUE(answer.ok());
    for (size_t at = 0; at < answer->size(); ++at) {
        std::string changed = *answer;
        changed[at] = static_cast<char>(changed[at] ^ 1);
        EXPECT_FALSE(one.take(changed).ok()) << at;
        EXPECT_FALSE(one.take(answer->substr(0, at)).ok()) << at;
    }
    for (const std::string& key : {std::string(), std::string(64, 'x'), std::string(62, '1'),
                                   std::string(64, '0'), one.key() + "00"}) {
        EXPECT_EQ(giver.give(2, key).error().code, Code::invalid) << key;
        EXPECT_FALSE(SecretAsker(key).take(*answer).ok()) << key;
    }
    EXPECT_TRUE(giver.give(2, SecretAsker(giver.key()).key()).ok());  // nothing of that counted
}

// One of them may be a stranger.
TEST(SecretExchange, TwoThatAskAsOneDaemonAreTold) {
    SecretGiver giver(job);
    const SecretAsker one(giver.key()), two(giver.key());
    EXPECT_TRUE(giver.give(1, one.key()).ok());
    EXPECT_TRUE(giver.give(1, one.key()).ok());
    EXPECT_TRUE(giver.give(2, two.key()).ok());
    EXPECT_EQ(giver.give(1, two.key()).error().code, Code::refused);
}

// --- messages between daemons ---

TEST(MessageSeal, IsReadByWhoItIsFor) {
    MessageSeal one(1, job.secret, job.life), two(2, job.secret, job.life),
        three(3, job.secret, job.life);
    const std::string text = R"({"t":"connect","token":"7e09"})";
    const std::string to_two = one.close(2, text), to_all = one.close(MessageSeal::everybody, text);
    for (const auto& sealed : {to_two, to_all}) {
        EXPECT_EQ(sealed.find("token"), std::string::npos);
        EXPECT_EQ(sealed.find("7e09"), std::string::npos);
    }
    EXPECT_EQ(three.open(1, to_two).error().code, Code::refused);
    ASSERT_TRUE(two.open(1, to_two).ok());
    EXPECT_FALSE(two.open(1, to_two).ok());  // repeated
    for (MessageSeal* each : {&one, &two, &three}) {
        const auto got = each->open(1, to_all);
        ASSERT_TRUE(got.ok()) << got.error().message();
        EXPECT_EQ(*got, text);
        EXPECT_FALSE(each->open(1, to_all).ok());
    }
    EXPECT_EQ(*two.open(1, one.close(2, "")), "");
}

TEST(MessageSeal, StrangersOtherLivesAndOtherSendersAreRefused) {
    MessageSeal one(1, job.secret, job.life), two(2, job.secret, job.life);
    MessageSeal stranger(1, std::string(64, 'b'), job.life), former(1, job.secret, "01");
    EXPECT_FALSE(two.open(1, stranger.close(2, "text")).ok());
    EXPECT_FALSE(two.open(1, former.close(2, "text")).ok());
    EXPECT_FALSE(two.open(0, one.close(2, "text")).ok());
    EXPECT_FALSE(two.open(1, two.close(2, "text")).ok());
    EXPECT_FALSE(two.open(1, two.close(1, "text")).ok());  // sent back
    const std::string good = one.close(2, "text");
    for (size_t at = 0; at < good.size(); ++at) {
        std::string changed = good;
        changed[at] = static_cast<char>(changed[at] ^ 1);
        EXPECT_FALSE(two.open(1, changed).ok()) << at;
        EXPECT_FALSE(two.open(1, good.substr(0, at)).ok()) << at;
    }
    EXPECT_TRUE(two.open(1, good).ok());  // nothing of that counted
}

TEST(MessageSeal, RepeatedAndReorderedMessagesAreRefused) {
    MessageSeal one(1, job.secret, job.life), two(2, job.secret, job.life);
    const std::string first = one.close(2, "1"), second = one.close(2, "2"),
                      all = one.close(MessageSeal::everybody, "3"), third = one.close(2, "4");
    EXPECT_TRUE(two.open(1, all).ok());  // another way, another order
    EXPECT_TRUE(two.open(1, second).ok());
    EXPECT_FALSE(two.open(1, first).ok());
    EXPECT_TRUE(two.open(1, third).ok());
    EXPECT_FALSE(two.open(1, second).ok());
}

}  // namespace
}  // namespace ghost::plugin
