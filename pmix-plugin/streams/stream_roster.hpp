// SPDX-License-Identifier: BSD-3-Clause
// The coordinator's part in the streams of the job's processes: when the first of them wants any,
// it has every daemon open its channel, and tells all who there is (docs/PROTOCOL.md, "Streams of
// kernet.h"). After that the managers do without it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

enum class StreamRosterState {
    idle,     // nobody has asked
    calling,  // the daemons are asked where they are
    called,   // all know
    stopped,
};

// Times are microseconds.
struct StreamRosterSettings {
    int64_t answer_us = 5'000'000;  // then those that have answered are all there are
};

// Owned by the plugin in mpirun; used on the loop only. The adapter must outlive it.
class StreamRoster {
  public:
    StreamRoster(StreamsRuntime& adapter, StreamRosterSettings settings);
    ~StreamRoster();
    StreamRoster(const StreamRoster&) = delete;
    StreamRoster& operator=(const StreamRoster&) = delete;

    void start();
    void stop();
    StreamRosterState state() const;

  private:
    class Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace ghost::plugin
