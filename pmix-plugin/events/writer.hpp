// SPDX-License-Identifier: BSD-3-Clause
// Writes a job's event log without ever keeping the job waiting: lines are handed to a thread of
// its own. What cannot be written (a full disk, a folder of somebody else's) is said once; a file
// server that hangs keeps the thread, and lines beyond those that wait are dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace ghost::plugin {

// Owned and called by the loop thread. The thread begins with the first call and takes no signals.
class EventWriter {
  public:
    // threaded false: all is written in the caller (the simulated runtime's clock stands still
    // meanwhile).
    explicit EventWriter(bool threaded);
    ~EventWriter() { stop(); }
    EventWriter(const EventWriter&) = delete;
    EventWriter& operator=(const EventWriter&) = delete;

    // Lines go to this file from now on (files.hpp), which is made; logs of older jobs in its
    // folder are removed but for the newest.
    void open(const std::string& path);
    // And to what `append` appends a line to and says how that went (the folder of snapshots).
    void also(std::function<std::string(const std::string& line)> append);
    // A line, with its end.
    void write(std::string line);
    // What the file has becomes its older part.
    void rotate();
    // Waits until all is written, for a second at most. Later calls do nothing.
    void stop();

  private:
    struct Places;
    struct Thread;
    void add(std::function<void(Places&)> task);

    std::shared_ptr<Thread> thread_;  // and the thread itself has it
    bool threaded_;
    bool stopped_ = false;
};

}  // namespace ghost::plugin
