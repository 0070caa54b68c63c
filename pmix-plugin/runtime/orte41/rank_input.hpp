// SPDX-License-Identifier: BSD-3-Clause
// Standard input on its way to a rank that moves.
//
// mpirun sends what it reads to the daemon of the rank, which writes it to the rank's wrapper as
// fast as the rank reads; Open MPI 4.1's flow control does not hold mpirun up, so all of a file may
// wait there. The source writes nothing more from the moment the rank's gate is closed (what its
// wrapper has is carried with the ghost), and takes what waits at the switch. The target asks for
// it piece by piece, so that it never stands in the way of what a move waits for:
// {"t":"rank_input_want","rank","move","at"} for piece `at`, those before it are whole;
// {"t":"rank_input","rank","move","at","data","end","last"}, `data` in base64, `end`: the end of
// the input follows. `move` is the target's own number of the coming, so that what is late is known
// as such. mpirun's own later input waits at the target until all of that has come; until then the
// rank does not leave. A rank that goes back to a snapshot asks mpirun for what it was given since
// in the same way (docs/PROTOCOL.md, "A recovery").
#pragma once

#include <map>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/orte41/kept_input.hpp"
#include "pmix-plugin/runtime/orte41/loop.hpp"
#include "pmix-plugin/runtime/orte41/messenger.hpp"

namespace ghost::plugin::orte41 {

// ORTE's main thread only.
class RankInput {
  public:
    RankInput(Loop& loop, RmlMessenger& messenger, const KeptInput& kept);

    // Source: the gate is closed; the rank goes on here after all.
    void hold(RankId rank);
    void resume(RankId rank);
    // Source, at the switch.
    void leave(RankId rank);
    // Target, at the switch: its streams are open.
    void expect(RankId rank, NodeId from);
    // Target: some of it has not come yet.
    bool waits(RankId rank) const { return expected_.contains(rank); }
    // mpirun: the rank starts anew, and what it is to be given since that place is here.
    void give_again(RankId rank, uint64_t from);
    // No rank is left.
    void forget();

  private:
    struct Departed {
        std::vector<std::string>
            pieces;  // at least one; those that are whole at the target are empty
        bool end = false;
    };
    struct Again {  // what mpirun keeps
        uint64_t from, to;
        bool end;
    };
    struct Want {
        NodeId by;
        uint64_t move, at;
    };
    struct Expected {
        NodeId from;
        uint64_t move;
        std::string data;
        uint64_t pieces = 0;  // have come
        TimerId limit = 0;
    };

    void on_want(NodeId by, const RankInputWant& m);
    void answer(RankId rank);
    void answer_again(RankId rank, const Again& input, const Want& want);
    void on_piece(const RankInputPiece& m);
    void ask(RankId rank, Expected& input);
    void expired(RankId rank);
    void node_lost(NodeId node);
    void give(RankId rank, bool end);

    Loop& loop_;
    RmlMessenger& messenger_;
    const KeptInput& kept_;
    std::map<RankId, Departed> departed_;
    std::map<RankId, Again> again_;
    std::map<RankId, Want> wants_;  // the last of each rank; may come before the rank has left
    std::map<RankId, Expected> expected_;
    uint64_t moves_ = 0;
};

}  // namespace ghost::plugin::orte41
