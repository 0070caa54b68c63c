// Standard input on its way to a rank that moves.
//
// mpirun sends what it reads to the daemon of the rank, which writes it to the rank's wrapper as
// fast as the rank reads; Open MPI 4.1's flow control does not hold mpirun up, so all of a file may
// wait there. The source writes nothing more from the moment the rank's gate is closed (what its
// wrapper has is carried with the ghost); at the switch it sends what waits to the target:
// {"t":"rank_input","rank","data","end","last"}, in pieces, `data` in base64, `end`: the end of the
// input follows. mpirun's own later input waits there until all of that has come.
#pragma once

#include <map>
#include <string>

#include "pmix-plugin/orte4/loop.hpp"
#include "pmix-plugin/orte4/messenger.hpp"

namespace ghost::plugin::orte4 {

// ORTE's main thread only.
class RankInput {
  public:
    RankInput(Loop& loop, Messenger& messenger);

    // Source: the gate is closed; the rank goes on here after all.
    static void hold(RankId rank);
    void resume(RankId rank);
    // Source, at the switch.
    void send(RankId rank, NodeId to) const;
    // Target, at the switch: its streams are open.
    void expect(RankId rank);

  private:
    struct Expected {
        std::string data;
        bool end = false, complete = false;
        bool here = false;  // the rank's streams are
        TimerId limit = 0;
    };

    void hear(const Json& m);
    void give_if_due(RankId rank);

    Loop& loop_;
    Messenger& messenger_;
    std::map<RankId, Expected> expected_;
};

}  // namespace ghost::plugin::orte4
