// SPDX-License-Identifier: BSD-3-Clause
// Programs run by the multi-node tests: started, watched by polling, ended whatever happens.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace nettest {

// Polls every few milliseconds until the condition holds. False: it did not in time.
bool poll_until(double seconds, const std::function<bool()>& condition);

// A folder of this test run below the working directory (which all nodes of a lab see, unlike
// /tmp); removed at the end.
class Scratch {
  public:
    Scratch();
    ~Scratch();
    std::string path(const std::string& name) const { return folder_ + "/" + name; }

  private:
    std::string folder_;
};

// Creates an empty file: the word the test programs wait for.
void touch(const std::string& path);

struct Finished {
    int status = -1;  // exit status, 128 + signal; -1: not ended in time (then it was killed)
    std::string out;
    std::string err;
};

// A program in the background, in a process group of its own. One owner, one thread.
class Background {
  public:
    // Standard output and error go to unlinked files. Standard input is a pipe with `input`, at its
    // end unless `more` is to come by feed().
    explicit Background(const std::vector<std::string>& argv, const std::string& input = "",
                        bool more = false);
    Background(Background&& other) noexcept;
    Background& operator=(Background&&) = delete;
    ~Background();  // ends it: SIGTERM, after two seconds SIGKILL

    bool running();
    // Waits while the pipe is full.
    void feed(const std::string& input, bool more);
    // What it has written so far.
    std::string out() const;
    std::string err() const;
    // Waits for the end; a program that takes longer is killed and has status -1.
    Finished finish(double seconds);

  private:
    bool reap(bool block);

    pid_t pid_ = -1;
    int status_ = -1;
    bool ended_ = false;
    int in_ = -1, out_ = -1, err_ = -1;
};

// Runs a program to its end.
Finished run(const std::vector<std::string>& argv, double seconds);

}  // namespace nettest
