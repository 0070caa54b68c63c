// SPDX-License-Identifier: BSD-3-Clause
// The standard input, output and error of a rank.
//
// The runtime's ends are always descriptors 0, 1 and 2 of the wrapper. The rank gets inner ones
// that belong to the wrapper, so that its open files do not depend on a daemon: a pipe for a pipe,
// a pty for a pty (so that isatty(), hence line buffering, is as before), /dev/null as it is.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/wrapper/pump.hpp"
#include "pmix-plugin/wrapper/rank_metadata.hpp"

namespace ghost::plugin {

// Owns the wrapper's inner ends and the pumps. One thread, but for note_output().
class Stdio {
  public:
    // Makes inner descriptors like the runtime's 0, 1 and 2.
    static Result<Stdio> for_program();
    // Makes those of a ghost: `ghost` is what carry() gave at the source.
    static Result<Stdio> for_ghost(const RankStdio& ghost);
    // What carry() gave later than that, before start().
    void take_state(const RankStdio& ghost);
    // The same: mpirun begins with this rank, and counts its input and output from here on; or has
    // shown so much of the output already. False: some of it may be shown twice.
    void begin_counts();
    bool skip_output(const ShownOutput& shown);
    // Takes over those of a wrapper that died: its inner ends as spare() gave them, input, output,
    // error; the runtime's are 0, 1 and 2 already. `program`: the rank's first process; `taken`:
    // the dead one's input_taken() as it was told last.
    static Stdio adopt(std::vector<Fd> inner, pid_t program, int64_t taken);

    // The rank's own ends, to become its 0, 1 and 2; -1 for direct ones that stay.
    int rank_end(int i) const { return rank_[i].get(); }
    void close_rank_ends();

    // CRIU keys of the rank's descriptors that lead out of the tree.
    std::vector<std::string> keys() const;
    // (descriptor of this object, key of the source it stands for).
    std::vector<std::pair<int, std::string>> heirs(const RankStdio& ghost) const;
    // For the node agent to keep, so that a new wrapper can adopt the rank: the runtime's three
    // ends and the inner three, /dev/null where there is none (docs/PROTOCOL.md, `hello`).
    std::vector<int> spare();

    // Stops input and takes back all of it that the rank has not read: what the ghost carries
    // besides kinds and keys.
    RankStdio carry();
    // While the rank is stopped, on any thread: how far its output goes by then.
    void note_output(RankStdio& carried);
    // What of it was, or will be, given to the runtime since start().
    OutputGiven output_given() const;
    // Bytes of input taken from the runtime since mpirun began, here and where the rank was
    // before: what the rank has read or will find in the ghost that carry() goes into. -1: not
    // known.
    int64_t input_taken() const;
    // Whether that has changed since the last call; then it is to be told, so that a wrapper that
    // adopts the rank knows it.
    bool input_was_taken();
    // After carry(), when the rank stays here: gives it back and goes on.
    void uncarry();

    // Starts moving bytes. The runtime's ends become non-blocking.
    void start();
    std::array<Interest, 3> interests() const;
    void run();
    // Every byte the rank wrote before has reached the runtime (the rank is stopped or dead).
    bool drained() const;
    // Output waits for the runtime to take it.
    bool output_blocked() const;
    // The input has ended; true only once.
    bool input_just_closed();

  private:
    Status make(int i, StdStream kind);
    Status make_tty(const StandardEnd& like);
    void close_input();
    void carry_rest();

    StdStream kind_[3] = {StdStream::direct, StdStream::direct, StdStream::direct};
    std::string key_[3];
    Fd ours_[3];  // input: write end; output, error: read end or pty master
    Fd rank_[3];
    Fd null_;
    Fd rest_;  // a read end of ended input: the rank may not have read all of it
    Fd held_;  // a write end of it while that is carried: the rank is not to find the end
    Pump in_, out_, err_;
    OutputMeter begin_[2];                                                  // of output and error
    std::unique_ptr<std::mutex> outputs_ = std::make_unique<std::mutex>();  // of out_ and err_
    std::string carried_;
    int64_t input_told_ = 0;
    int64_t input_before_ = 0;  // taken, but not by in_; -1: not known
    bool input_open_ = false;
    bool last_ = false;  // open for what was carried; the runtime has no more
    bool input_closed_told_ = false;
};

}  // namespace ghost::plugin
