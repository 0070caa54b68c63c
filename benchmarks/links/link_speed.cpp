// SPDX-License-Identifier: BSD-3-Clause
// What streams and what is below them cost, each layer by itself, in one process and on one thread:
// no processor has to wake another, so this is work, not the time a message takes between
// processes.
//
//   ring/SIZE              link shm alone: a message put into the ring and taken out
//   reliable/FAULTS/SIZE   a message over the reliability of packet links: lost packets sent again
//   stream/LINK/SIZE       a message over a stream between two endpoints that went by that link
//
//   link_speed [--benchmark_filter=stream/udp]   (what a link lacks here is said in its line)
#include <benchmark/benchmark.h>

#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "tests/contract/kernet_messages.hpp"
#include "kernet-btl/link/loop.hpp"

namespace {

using namespace kernet;

constexpr int64_t limit_us = 5'000'000;  // for a message, and for the first one's connection

void bytes_done(benchmark::State& state) {
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * state.range(0));
}

void ring(benchmark::State& state) {
    auto made = RingMapping::create(RingGeometry{});
    if (!made) return state.SkipWithError(made.error().message().c_str());
    RingTx writer(*made->first, 0);
    RingRx reader(*made->first, 0);
    const auto size = static_cast<size_t>(state.range(0));
    std::vector<uint8_t> out(size, 1), in(size);
    uint64_t number = 0;
    for (auto _ : state) {
        uint8_t* room = writer.reserve(size);
        if (!room) return state.SkipWithError("there is no room in the ring");
        std::memcpy(room, out.data(), size);
        writer.commit(size, 1, LineKind::data, ++number);
        LineView line;
        if (!reader.ready() || !reader.view(line) || line.length != size)
            return state.SkipWithError("another message came");
        std::memcpy(in.data(), line.data, size);
        reader.advance(line);
    }
    bytes_done(state);
}

// One of the two ends of a stream.
struct End {
    explicit End(std::unique_ptr<Endpoint> made, uint32_t peer)
        : endpoint(std::move(made)), hub(*endpoint), stream(hub.attach(peer)) {}
    std::unique_ptr<Endpoint> endpoint;
    StreamHub hub;
    Stream& stream;
};

struct Setting {
    std::string link, faults;
};

// Two endpoints on this thread, connected by that link.
class Pair {
  public:
    static Result<std::unique_ptr<Pair>> make(const Setting& setting) {
        auto pair = std::unique_ptr<Pair>(new Pair);
        for (uint32_t rank : {0U, 1U}) {
            auto config = pair->config_of(rank, setting);
            if (!config) return config.error();
            auto made = Endpoint::create(*config);
            if (!made) return made.error();
            pair->ends_[rank] = std::make_unique<End>(std::move(*made), 1 - rank);
        }
        for (uint32_t rank : {0U, 1U})
            pair->ends_[rank]->endpoint->set_location(pair->ends_[1 - rank]->endpoint->location());
        GHOST_TRY(pair->connect(setting.link));
        return pair;
    }
    // One message from 0 to 1; false if it does not come.
    bool pass(Stream::Message message, Stream::Message& got) {
        ends_[0]->stream.send(std::move(message));
        for (uint32_t looks = 1; !ends_[1]->stream.recv(got); ++looks) {
            ends_[0]->hub.progress();
            ends_[1]->hub.progress();
            // what is due by itself is the control side's; and a clock is not for every look
            if (looks % 256 == 0 && !serve(looks)) return false;
        }
        return true;
    }

  private:
    Pair() = default;
    Result<EndpointConfig> config_of(uint32_t rank, const Setting& setting) {
        static int jobs = 0;
        if (rank == 0) jobs++;
        EndpointConfig config;
        config.job = fmt::format("link_speed{}-{}", getpid(), jobs);
        config.rank = rank;
        config.secret_hex = std::string(64, 'a');
        config.node = 0;
        config.node_name = "here";
        config.if_include = "lo";
        config.use_shm = setting.link == "shm";
        config.links = setting.link == "shm" ? "tcp" : setting.link;
        if (setting.link == "loop") config.loop = loop_;
        auto plan = FaultPlan::parse(setting.faults);
        if (!plan) return plan.error();
        config.faults = *plan;
        config.faults.seed += rank;
        return config;
    }
    Status connect(const std::string& link) {
        Stream::Message got;
        if (!pass(Stream::Message(8), got))
            return ghost::make_error(ghost::Code::timeout, "connect by", link);
        Gate::Holder inside(ends_[0]->endpoint->data().gate());
        const char* name = ends_[0]->endpoint->data().attach(1).link_name();
        if (link == name) return {};
        return ghost::make_error(ghost::Code::unsupported, "use link", link,
                                 "it became " + std::string(name));
    }
    bool serve(uint32_t looks) {
        const int64_t now = ghost::monotonic_us();
        if (looks == 256) began_ = now;
        for (auto& end : ends_) end->endpoint->service();
        return now - began_ < limit_us;
    }

    std::shared_ptr<LoopHub> loop_ = std::make_shared<LoopHub>();
    std::unique_ptr<End> ends_[2];
    int64_t began_ = 0;
};

void stream(benchmark::State& state, const Setting& setting) {
    auto pair = Pair::make(setting);
    if (!pair) return state.SkipWithError(pair.error().message().c_str());
    const auto size = static_cast<size_t>(state.range(0));
    const Stream::Message message(size, 7);
    Stream::Message got;
    for (auto _ : state) {
        if (!(*pair)->pass(message, got) || got.size() != size)
            return state.SkipWithError("a message did not come");
    }
    if (got != message) state.SkipWithError("other bytes came");
    bytes_done(state);
}

void add(const std::string& title, const Setting& setting) {
    auto* one = benchmark::RegisterBenchmark(title.c_str(), stream, setting);
    for (int64_t size : {8, 1024, 16384, 262144}) one->Arg(size);
    one->UseRealTime();  // the kernel's part of a message may be another thread's
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::RegisterBenchmark("ring", ring)->Arg(8)->Arg(48)->Arg(256)->Arg(4096)->Arg(65536);
    add("reliable/clean", {"loop", "seed=1"});
    add("reliable/drop1percent", {"loop", "drop=100,seed=1"});
    for (const char* link : {"shm", "tcp", "udp", "netdevice", "ofi"})
        add(std::string("stream/") + link, {link, "seed=1"});
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
