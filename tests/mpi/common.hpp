// SPDX-License-Identifier: BSD-3-Clause
// What the MPI test programs share: options, byte patterns that can be checked, time.
// The programs are plain MPI programs: nothing of this project is linked into them.
#pragma once

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <unistd.h>
#include <vector>

namespace mpitest {

inline double now() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// "--name value" and "--name"; the last one wins.
class Options {
  public:
    Options(int argc, char** argv) : words_(argv + 1, argv + argc) {}
    bool flag(const char* name) const {
        for (const std::string& word : words_) {
            if (word == name) return true;
        }
        return false;
    }
    std::string text(const char* name, std::string value) const {
        for (size_t i = 0; i + 1 < words_.size(); ++i) {
            if (words_[i] == name) value = words_[i + 1];
        }
        return value;
    }
    double number(const char* name, double value) const {
        std::string word = text(name, "");
        return word.empty() ? value : std::atof(word.c_str());
    }

  private:
    std::vector<std::string> words_;
};

// splitmix64: neighbouring inputs give unrelated words.
inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

// The key of a message's content: who sent it, as what, when.
inline uint64_t key(int source, int tag, uint64_t iteration) {
    return mix(mix(mix(static_cast<uint64_t>(source)) + static_cast<uint64_t>(tag)) + iteration);
}

// Byte i of a message is byte i % 8 of mix(key + i / 8): a shifted, stale or foreign message, or a
// part of one, shows.
inline void fill(void* data, size_t bytes, uint64_t k) {
    auto* out = static_cast<unsigned char*>(data);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = mix(k + i / 8);
        std::memcpy(out + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

// Number of wrong bytes.
inline size_t wrong(const void* data, size_t bytes, uint64_t k) {
    const auto* in = static_cast<const unsigned char*>(data);
    size_t count = 0;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = mix(k + i / 8);
        size_t n = bytes - i < 8 ? bytes - i : 8;
        if (std::memcmp(in + i, &word, n) == 0) continue;
        for (size_t j = 0; j < n; ++j) {
            count += in[i + j] != reinterpret_cast<unsigned char*>(&word)[j] ? 1 : 0;
        }
    }
    return count;
}

// A receive buffer with guarded surroundings.
class Guarded {
  public:
    explicit Guarded(size_t bytes) : bytes_(bytes), all_(bytes + 2 * guard) { reset(); }
    void* data() { return all_.data() + guard; }
    size_t size() const { return bytes_; }
    void reset() { std::memset(all_.data(), fill_byte, all_.size()); }
    // Wrong bytes of the first `length`, plus every byte written elsewhere.
    size_t check(size_t length, uint64_t k) const {
        size_t bad = wrong(all_.data() + guard, length, k);
        for (size_t i = 0; i < guard; ++i) bad += all_[i] != fill_byte ? 1 : 0;
        for (size_t i = guard + length; i < all_.size(); ++i) bad += all_[i] != fill_byte ? 1 : 0;
        return bad;
    }

  private:
    static constexpr size_t guard = 64;
    static constexpr unsigned char fill_byte = 0xEE;
    size_t bytes_;
    std::vector<unsigned char> all_;
};

// Memory that must come through every move unharmed.
class Ballast {
  public:
    Ballast(size_t megabytes, int rank) : words_(megabytes << 17), rank_(rank) {
        for (size_t i = 0; i < words_.size(); ++i) words_[i] = expected(i);
    }
    // The next so many words, from the first on again and again, become others.
    void rewrite(size_t words) {
        for (; words > 0 && !words_.empty(); --words) {
            const size_t i = static_cast<size_t>(rewritten_++ % words_.size());
            words_[i] = expected(i);
        }
    }
    size_t wrong_words() const {
        size_t bad = 0;
        for (size_t i = 0; i < words_.size(); ++i) bad += words_[i] != expected(i) ? 1 : 0;
        return bad;
    }
    uint64_t rewritten() const { return rewritten_; }

  private:
    // How often it has been rewritten is in it.
    uint64_t expected(size_t i) const {
        const uint64_t all = words_.size(), times = rewritten_ / all + (i < rewritten_ % all);
        return mix(i * 1024 + static_cast<uint64_t>(rank_)) + times;
    }
    std::vector<uint64_t> words_;
    uint64_t rewritten_ = 0;
    int rank_;
};

// When a program has done enough: --iterations N, else --seconds T, else when --until-file PATH
// exists; without any of them after `rounds` rounds.
class Limit {
  public:
    Limit(const Options& options, uint64_t rounds)
        : seconds_(options.number("--seconds", 0)),
          rounds_(static_cast<uint64_t>(options.number("--iterations", 0))),
          file_(options.text("--until-file", "")) {
        if (rounds_ == 0 && seconds_ <= 0 && file_.empty()) rounds_ = rounds;
    }
    bool reached(uint64_t round) const {
        if (rounds_ > 0) return round >= rounds_;
        if (seconds_ > 0 && elapsed() >= seconds_) return true;
        return !file_.empty() && ::access(file_.c_str(), F_OK) == 0;
    }
    double elapsed() const { return now() - start_; }

  private:
    double seconds_;
    uint64_t rounds_;
    std::string file_;
    double start_ = now();
};

struct World {
    int rank = 0;
    int size = 1;
    World(int* argc, char*** argv, int threads = MPI_THREAD_SINGLE) {
        int provided = 0;
        MPI_Init_thread(argc, argv, threads, &provided);
        if (provided < threads) MPI_Abort(MPI_COMM_WORLD, 97);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    // Rank 0 decides for all, so that all stop at the same round.
    bool agree(bool go_on) const {
        int value = go_on ? 1 : 0;
        MPI_Bcast(&value, 1, MPI_INT, 0, MPI_COMM_WORLD);
        return value != 0;
    }
    uint64_t sum(uint64_t value) const {
        uint64_t total = 0;
        MPI_Allreduce(&value, &total, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
        return total;
    }
    // "PROGRAM: round N", as rank 0.
    void say_round(const char* program, uint64_t round) const {
        if (rank != 0) return;
        std::printf("%s: round %llu\n", program, static_cast<unsigned long long>(round));
        std::fflush(stdout);
    }
    // "PROGRAM: N WHAT, E errors", as rank 0: of all ranks.
    void say_end(const char* program, uint64_t count, const char* what, uint64_t errors) const {
        if (rank != 0) return;
        std::printf("%s: %llu %s, %llu errors\n", program, static_cast<unsigned long long>(count),
                    what, static_cast<unsigned long long>(errors));
        std::fflush(stdout);
    }
};

}  // namespace mpitest
