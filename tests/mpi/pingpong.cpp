// SPDX-License-Identifier: BSD-3-Clause
// pingpong [--seconds T] [--iterations N] [--until-file PATH] [--bytes B] [--memory MB]
//          [--writes MB_PER_S] [--gap MS] [--text TEXT]
//
// Ranks 0 and 1 send a small message to and fro as fast as they can; every byte is checked. Each
// measures the time between two messages of the other: what a move of the partner costs is its
// largest gap. Rank 0 prints "pingpong: started" and at the end, for each of the two,
//
//   pingpong: rank R: N rounds, median M us, p99 P us, max X us, E errors
//   gap R: START_S LENGTH_MS
//   histogram R: <1us:N <2us:N …
//
// with each gap above --gap (default 5 ms; its start since the first message; at most 4000) and
// a histogram by powers of two. With --writes a thread of rank 1 writes its memory meanwhile, and
// rank 1 prints "writes: R MB/s, longest pause P ms". With --text every message of at least its
// length contains TEXT, for whoever listens on the way. Other ranks wait. Ends 1 on any error.
#include <algorithm>
#include <thread>
#include <unistd.h>

#include "tests/mpi/common.hpp"

namespace {

constexpr int tag = 1;

class Gaps {
  public:
    explicit Gaps(double shown_ms) : shown_ms_(shown_ms) {}

    void tick() {
        double t = mpitest::now();
        if (count_ == 0) {
            first_ = last_ = t;
            ++count_;
            return;
        }
        double us = (t - last_) * 1e6;
        last_ = t;
        ++count_;
        int bucket = 0;
        while (bucket < buckets - 1 && us >= static_cast<double>(1ULL << bucket)) ++bucket;
        ++histogram_[bucket];
        // A fine histogram of tenths of a microsecond for the quantiles, without keeping them all.
        size_t fine =
            std::min<size_t>(static_cast<size_t>(std::max(us, 0.0) * 10), fine_.size() - 1);
        ++fine_[fine];
        max_us_ = std::max(max_us_, us);
        if (us >= shown_ms_ * 1000 && shown_.size() < most_shown)
            shown_.push_back({t - first_, us});
    }

    std::string report(int rank, uint64_t errors) const {
        std::string text = "pingpong: rank " + std::to_string(rank) + ": ";
        char line[256];
        std::snprintf(line, sizeof line, "%llu rounds, median %.1f us, p99 %.1f us, max %.1f us, ",
                      static_cast<unsigned long long>(count_), quantile(0.5), quantile(0.99),
                      max_us_);
        text += line + std::to_string(errors) + " errors\n";
        for (auto [at, us] : shown_) {
            std::snprintf(line, sizeof line, "gap %d: %.6f s %.3f ms\n", rank, at - us * 1e-6,
                          us * 1e-3);
            text += line;
        }
        text += "histogram " + std::to_string(rank) + ":";
        for (int b = 0; b < buckets; ++b) {
            if (histogram_[b] == 0) continue;
            std::snprintf(line, sizeof line, " <%lluus:%llu", 1ULL << b,
                          static_cast<unsigned long long>(histogram_[b]));
            text += line;
        }
        return text + "\n";
    }

  private:
    static constexpr int buckets = 40;
    static constexpr size_t most_shown = 4000;  // several a move, of hundreds of moves

    double quantile(double q) const {
        auto wanted = static_cast<uint64_t>(static_cast<double>(count_) * q);
        uint64_t seen = 0;
        for (size_t i = 0; i < fine_.size(); ++i) {
            seen += fine_[i];
            if (seen >= wanted) return static_cast<double>(i) / 10;
        }
        return max_us_;
    }

    struct Gap {
        double at, us;
    };
    double shown_ms_;
    double first_ = 0, last_ = 0, max_us_ = 0;
    uint64_t count_ = 0;
    uint64_t histogram_[buckets] = {};
    std::vector<uint32_t> fine_ = std::vector<uint32_t>(200000);  // up to 20 ms
    std::vector<Gap> shown_;
};

// The last message says so by its first byte.
struct Game {
    std::vector<unsigned char> out, in;
    std::string text;
    Game(size_t bytes, std::string said) : out(bytes + 1), in(bytes + 1), text(std::move(said)) {
        if (text.size() > bytes) text.clear();
    }

    void send(int me, int to, uint64_t round, bool last) {
        mpitest::fill(out.data() + 1, out.size() - 1, mpitest::key(me, tag, round));
        std::copy(text.begin(), text.end(), out.begin() + 1);
        out[0] = last ? 1 : 0;
        MPI_Send(out.data(), static_cast<int>(out.size()), MPI_BYTE, to, tag, MPI_COMM_WORLD);
    }
    uint64_t receive(int from, uint64_t round, bool* last) {
        MPI_Recv(in.data(), static_cast<int>(in.size()), MPI_BYTE, from, tag, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        *last = in[0] != 0;
        if (!std::equal(text.begin(), text.end(), in.begin() + 1)) return 1;
        mpitest::fill(in.data() + 1, text.size(), mpitest::key(from, tag, round));
        return mpitest::wrong(in.data() + 1, in.size() - 1, mpitest::key(from, tag, round));
    }
};

uint64_t play(const mpitest::World& world, const mpitest::Options& options, Gaps& gaps) {
    Game game(static_cast<size_t>(options.number("--bytes", 64)), options.text("--text", ""));
    mpitest::Limit limit(options, 10000);
    uint64_t errors = 0;
    bool last = false;
    for (uint64_t round = 0; !last; ++round) {
        if (world.rank == 0) {
            // The clock or the file every so often only: this is a measurement.
            bool ending = (round % 64 == 63 || round < 64) && limit.reached(round + 1);
            game.send(0, 1, round, ending);
            errors += game.receive(1, round, &last);
        } else {
            errors += game.receive(0, round, &last);
            game.send(1, 0, round, last);
        }
        gaps.tick();
    }
    return errors;
}

// Writes at a rate from when it is made until it ends. What it could not write while it stood still
// it does not write later.
class Writer {
  public:
    Writer(mpitest::Ballast& ballast, double megabytes_per_s) {
        if (megabytes_per_s <= 0) return;
        thread_ = std::jthread([this, &ballast, rate = megabytes_per_s * 1e6 / 8](
                                   std::stop_token stop) { write(ballast, rate, stop); });
    }
    // To be called once.
    std::string end() {
        if (!thread_.joinable()) return {};
        thread_.request_stop();
        thread_.join();
        char line[128];
        std::snprintf(line, sizeof line, "writes: %.1f MB/s, longest pause %.1f ms\n", rate_,
                      longest_ * 1e3);
        return line;
    }

  private:
    void write(mpitest::Ballast& ballast, double words_per_s, const std::stop_token& stop) {
        constexpr double most_s = 0.01;
        const double begin = mpitest::now();
        for (double last = begin; !stop.stop_requested();) {
            usleep(1000);
            const double t = mpitest::now(), passed = t - last;
            last = t;
            longest_ = std::max(longest_, passed);
            ballast.rewrite(static_cast<size_t>(std::min(passed, most_s) * words_per_s));
        }
        rate_ = static_cast<double>(ballast.rewritten()) * 8e-6 / (mpitest::now() - begin);
    }

    double rate_ = 0, longest_ = 0;
    std::jthread thread_;
};

// Rank 0 prints both: long texts of two ranks at once would be mixed on their way out.
void print_reports(const mpitest::World& world, std::string report) {
    constexpr int report_tag = 2;
    if (world.rank == 1) {
        MPI_Send(report.data(), static_cast<int>(report.size()), MPI_CHAR, 0, report_tag,
                 MPI_COMM_WORLD);
        return;
    }
    MPI_Status status;
    MPI_Probe(1, report_tag, MPI_COMM_WORLD, &status);
    int length = 0;
    MPI_Get_count(&status, MPI_CHAR, &length);
    std::string other(static_cast<size_t>(length), ' ');
    MPI_Recv(other.data(), length, MPI_CHAR, 1, report_tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    std::printf("%s%s", report.c_str(), other.c_str());
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv, MPI_THREAD_FUNNELED);
    mpitest::Options options(argc, argv);
    if (world.size < 2) {
        std::fprintf(stderr, "pingpong: needs two ranks\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 0)), world.rank);
    Gaps gaps(options.number("--gap", 5));
    MPI_Barrier(MPI_COMM_WORLD);
    if (world.rank == 0) {
        std::printf("pingpong: started\n");
        std::fflush(stdout);
    }
    Writer writer(ballast, world.rank == 1 ? options.number("--writes", 0) : 0);
    uint64_t errors = world.rank < 2 ? play(world, options, gaps) : 0;
    const std::string wrote = writer.end();
    errors += ballast.wrong_words();
    if (world.rank < 2) print_reports(world, gaps.report(world.rank, errors) + wrote);
    errors = world.sum(errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
