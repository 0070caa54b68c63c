// SPDX-License-Identifier: BSD-3-Clause
// The process that the benchmarks copy: memory that does not compress, written at a chosen rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/types.h>

namespace ghost::bench {

struct SubjectShape {
    size_t megabytes = 64;
    double rate = 0;  // MB/s of random whole pages
    bool huge = false;
};

// If the program was called as one (argv[1] is "--subject"), is one until it is killed.
void be_subject_if_asked(int argc, char** argv);

// The init of a PID name space, standing in its own session with /dev/null as its standard files;
// killed and reaped at the end.
class Subject {
  public:
    explicit Subject(const SubjectShape& shape);
    ~Subject();
    Subject(const Subject&) = delete;
    Subject& operator=(const Subject&) = delete;

    // All memory is written. False: it died.
    bool ready() const { return ready_; }
    pid_t pid() const { return pid_; }
    // Length of the longest gap in its steps of 1 ms since the last call, ms, and what it wrote,
    // MB/s: how it felt. Zeros without a rate.
    struct Felt {
        double gap_ms = 0, rate = 0;
    };
    Felt felt();

    [[noreturn]] static void run(const char* path, size_t megabytes, double rate, bool huge);

  private:
    struct Shared;
    std::string path_;  // of the file it counts in
    pid_t pid_ = 0;
    bool ready_ = false;
    Shared* shared_ = nullptr;
    int64_t asked_us_ = 0;
};

}  // namespace ghost::bench
