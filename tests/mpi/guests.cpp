// SPDX-License-Identifier: BSD-3-Clause
// guests [--children N] [--rounds-each R] [--pause-file PATH] [--under-way] [--seconds T]
// [--iterations N] [--until-file PATH]
//
// Ranks that spawn others (MPI_Comm_spawn of this same program), talk with them, are joined with
// them a second time (MPI_Comm_accept and MPI_Comm_connect), leave them, and spawn the next. Every
// byte that passes is checked by who gets it. While the pause file exists there are no guests,
// which rank 0 says. With --under-way a long message is on its way while they are spawned, to a
// rank that comes late: stock Open MPI stands there if both ranks are on one node. With --meet
// accept or connect it is joined with another mpirun's ranks instead. It prints a line for each
// round and at the end "guests: N rounds, E errors"; the program ends with 1 if there was an error.
#include <memory>

#include "tests/mpi/common.hpp"

namespace {

using mpitest::Guarded;
using mpitest::key;

// The two sides of an intercommunicator, and all of them as one.
class Joint {
  public:
    Joint(MPI_Comm between, bool guest) : between_(between), guest_(guest) {
        MPI_Intercomm_merge(between, guest ? 1 : 0, &all_);
        MPI_Comm_rank(all_, &rank_);
        MPI_Comm_size(all_, &size_);
        MPI_Comm_remote_size(between, &others_);
        MPI_Comm_rank(between, &own_);
    }
    ~Joint() {
        MPI_Comm_free(&all_);
        MPI_Comm_disconnect(&between_);
    }
    Joint(const Joint&) = delete;
    Joint& operator=(const Joint&) = delete;

    // Rank 0 of the first side decides.
    uint64_t told(uint64_t value) const {
        MPI_Bcast(&value, 1, MPI_UINT64_T, 0, all_);
        return value;
    }
    uint64_t sum(uint64_t value) const {
        uint64_t total = 0;
        MPI_Allreduce(&value, &total, 1, MPI_UINT64_T, MPI_SUM, all_);
        return total;
    }
    size_t ring(uint64_t round, size_t bytes) const;
    size_t across(uint64_t round, size_t bytes) const;

  private:
    MPI_Comm between_;
    MPI_Comm all_ = MPI_COMM_NULL;
    bool guest_;
    int rank_ = 0, size_ = 1, others_ = 0, own_ = 0;
};

size_t Joint::ring(uint64_t round, size_t bytes) const {
    const int to = (rank_ + 1) % size_, from = (rank_ + size_ - 1) % size_;
    std::vector<unsigned char> out(bytes);
    Guarded in(bytes);
    mpitest::fill(out.data(), bytes, key(rank_, 1, round));
    const int n = static_cast<int>(bytes);
    MPI_Sendrecv(out.data(), n, MPI_BYTE, to, 1, in.data(), n, MPI_BYTE, from, 1, all_,
                 MPI_STATUS_IGNORE);
    return in.check(bytes, key(from, 1, round));
}

// From everybody of one side to everybody of the other.
size_t Joint::across(uint64_t round, size_t bytes) const {
    const int n = static_cast<int>(bytes);
    std::vector<std::unique_ptr<Guarded>> in;
    std::vector<std::vector<unsigned char>> out;
    std::vector<MPI_Request> requests;
    for (int peer = 0; peer < others_; ++peer) {
        in.push_back(std::make_unique<Guarded>(bytes));
        MPI_Irecv(in.back()->data(), n, MPI_BYTE, peer, 2, between_, &requests.emplace_back());
    }
    for (int peer = 0; peer < others_; ++peer) {
        out.emplace_back(bytes);
        mpitest::fill(out.back().data(), bytes, key(own_ * 2 + guest_, 10 + peer, round));
        MPI_Isend(out.back().data(), n, MPI_BYTE, peer, 2, between_, &requests.emplace_back());
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    size_t bad = 0;
    for (int peer = 0; peer < others_; ++peer) {
        bad += in[peer]->check(bytes, key(peer * 2 + 1 - guest_, 10 + own_, round));
    }
    return bad;
}

size_t talk(const Joint& joint, uint64_t round) {
    size_t bad = 0;
    for (size_t bytes : {size_t{8}, size_t{5000}, size_t{200001}}) {
        bad += joint.ring(round, bytes) + joint.across(round, bytes);
    }
    return bad;
}

// Guests open a port, their hosts connect to it.
std::unique_ptr<Joint> joined_again(const mpitest::World& world, MPI_Comm between, bool guest) {
    char port[MPI_MAX_PORT_NAME] = {};
    MPI_Comm again = MPI_COMM_NULL;
    if (guest) {
        if (world.rank == 0) {
            MPI_Open_port(MPI_INFO_NULL, port);
            MPI_Send(port, sizeof port, MPI_CHAR, 0, 3, between);
        }
        MPI_Comm_accept(port, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &again);
        if (world.rank == 0) MPI_Close_port(port);
    } else {
        if (world.rank == 0) {
            MPI_Recv(port, sizeof port, MPI_CHAR, 0, 3, between, MPI_STATUS_IGNORE);
        }
        MPI_Comm_connect(port, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &again);
    }
    return std::make_unique<Joint>(again, guest);
}

// When the hosts part from their guests, and when they have enough.
struct Hosts {
    mpitest::Limit limit;
    std::string pause_file;
    bool pause() const { return !pause_file.empty() && ::access(pause_file.c_str(), F_OK) == 0; }
    bool enough(uint64_t round) const { return limit.reached(round); }
};

// One generation of guests, on either side. Errors of both sides.
class Visit {
  public:
    Visit(const mpitest::World& world, MPI_Comm between, bool guest)
        : world_(world), between_(between), joint_(between, guest), guest_(guest) {}
    // `rounds` is the hosts', and so is `hosts` (null: a guest).
    uint64_t run(uint64_t& round, uint64_t rounds, const Hosts* hosts);

  private:
    uint64_t one_round(const Joint& joint, uint64_t round) {
        const double start = mpitest::now();
        const uint64_t bad = joint.sum(talk(joint, round));
        if (world_.rank == 0 && !guest_) {
            std::printf("round %llu: %llu errors, %.3f s\n", static_cast<unsigned long long>(round),
                        static_cast<unsigned long long>(bad), mpitest::now() - start);
            std::fflush(stdout);
        }
        return bad;
    }

    const mpitest::World& world_;
    MPI_Comm between_;
    Joint joint_;
    bool guest_;
};

uint64_t Visit::run(uint64_t& round, uint64_t rounds, const Hosts* hosts) {
    uint64_t errors = 0;
    round = joint_.told(round);
    const auto again = joined_again(world_, between_, guest_);
    for (uint64_t done = 0;; ++done) {
        const bool go_on = hosts && done < rounds && !hosts->enough(round) && !hosts->pause();
        if (joint_.told(go_on ? 1 : 0) == 0) return errors;
        errors += one_round(done % 2 == 0 ? joint_ : *again, round++);
    }
}

// A long message from rank 0 to the last rank, who is slow to receive it: rank 0 is long among
// those that spawn by then, and has to go on sending there. Or none.
class UnderWay {
  public:
    UnderWay(const mpitest::World& world, uint64_t round, bool wanted) : content_(size_t{3} << 20) {
        const int n = static_cast<int>(content_.size());
        const uint64_t what = key(0, 4, round);
        if (!wanted || world.size < 2) return;
        if (world.rank == 0) {
            mpitest::fill(content_.data(), content_.size(), what);
            MPI_Isend(content_.data(), n, MPI_BYTE, world.size - 1, 4, MPI_COMM_WORLD, &sent_);
        }
        if (world.rank == world.size - 1) {
            const double end = mpitest::now() + 0.5;  // a sleep would end early in a move
            while (mpitest::now() < end) ::usleep(1000);
            MPI_Recv(content_.data(), n, MPI_BYTE, 0, 4, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            wrong_ = mpitest::wrong(content_.data(), content_.size(), what);
        }
    }
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;
    // Wrong bytes, of all ranks.
    uint64_t arrived(const mpitest::World& world) {
        MPI_Wait(&sent_, MPI_STATUS_IGNORE);
        return world.sum(wrong_);
    }

  private:
    std::vector<unsigned char> content_;
    MPI_Request sent_ = MPI_REQUEST_NULL;
    uint64_t wrong_ = 0;
};

MPI_Comm spawn(const std::string& program, int children) {
    MPI_Comm between = MPI_COMM_NULL;
    MPI_Comm_spawn(program.c_str(), MPI_ARGV_NULL, children, MPI_INFO_NULL, 0, MPI_COMM_WORLD,
                   &between, MPI_ERRCODES_IGNORE);
    return between;
}

void be_alone(const mpitest::World& world, const Hosts& hosts) {
    for (bool first = true; world.agree(hosts.pause()); first = false) {
        MPI_Barrier(MPI_COMM_WORLD);  // the others have parted, too, and nobody runs ahead
        if (world.rank == 0 && first) {
            std::printf("guests: alone\n");
            std::fflush(stdout);
        }
    }
}

uint64_t be_host(const mpitest::World& world, const mpitest::Options& options,
                 const std::string& program) {
    const Hosts hosts{mpitest::Limit(options, 4), options.text("--pause-file", "")};
    const int children = static_cast<int>(options.number("--children", 2));
    const auto each = static_cast<uint64_t>(options.number("--rounds-each", 2));
    uint64_t round = 0, errors = 0;
    while (world.agree(!hosts.enough(round))) {
        be_alone(world, hosts);
        UnderWay message(world, round, options.flag("--under-way"));
        Visit visit(world, spawn(program, children), false);
        errors += message.arrived(world) + visit.run(round, each, &hosts);
    }
    world.say_end("guests", round, "rounds", errors);
    return errors;
}

// Another mpirun's ranks: "accept" or "connect", by a published name. What comes of it is printed;
// if it failed, the own ranks go on.
int meet(const mpitest::World& world, const std::string& side) {
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    char port[MPI_MAX_PORT_NAME] = {};
    const bool accepts = side == "accept";
    if (world.rank == 0 && accepts) {
        MPI_Open_port(MPI_INFO_NULL, port);
        MPI_Publish_name("guests", MPI_INFO_NULL, port);
        std::printf("guests: published\n");
        std::fflush(stdout);
    } else if (world.rank == 0) {
        MPI_Lookup_name("guests", MPI_INFO_NULL, port);
    }
    MPI_Comm between = MPI_COMM_NULL;
    const auto call = accepts ? MPI_Comm_accept : MPI_Comm_connect;
    const int rc = call(port, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &between);
    if (world.rank == 0 && accepts) MPI_Unpublish_name("guests", MPI_INFO_NULL, port);
    int64_t sum = 0, mine = world.rank + 1;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    const bool right = sum == int64_t{world.size} * (world.size + 1) / 2;
    if (world.rank == 0) {
        std::printf("guests: %s, %d errors\n", rc == MPI_SUCCESS ? "met" : "refused",
                    right ? 0 : 1);
    }
    if (rc == MPI_SUCCESS) MPI_Comm_disconnect(&between);
    MPI_Finalize();
    return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const mpitest::World world(&argc, &argv);
    const mpitest::Options options(argc, argv);
    const std::string side = options.text("--meet", "");
    if (!side.empty()) return meet(world, side);
    MPI_Comm hosts = MPI_COMM_NULL;
    MPI_Comm_get_parent(&hosts);
    uint64_t errors = 0, round = 0;
    if (hosts == MPI_COMM_NULL) {
        errors = be_host(world, options, argv[0]);
    } else {
        errors = Visit(world, hosts, true).run(round, 0, nullptr);
    }
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
