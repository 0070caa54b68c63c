// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/netpipe/netpipe.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fmt/format.h>

#include "base/clock.hpp"

namespace ghost::bench {
namespace {

// A machine that wakes sleepers slowly needs minutes for what others do in seconds.
constexpr int stretch_limit_s = 600;
constexpr int64_t second_us = 1'000'000;

Result<Curve> to_curve(const std::string& name, int status, const std::string& output) {
    Curve curve;
    size_t at = 0;
    while (at < output.size()) {
        const size_t end = std::min(output.find('\n', at), output.size());
        if (auto sample = parse_line(output.substr(at, end - at))) {
            curve[sample->bytes] = sample->usec;
        }
        at = end + 1;
    }
    if (status == 0 && !curve.empty()) return curve;
    return because(Code::io,
                   fmt::format("NetPIPE over {} ended with {}:\n{}", name, status, output));
}

Result<Curve> curve_of(const Transport& transport, const Stretch& stretch,
                       const std::vector<std::string>& argv) {
    auto ended = run(argv, stretch_limit_s);
    if (ended.ok()) return to_curve(transport.name, ended->status, ended->output);
    if (ended.error().code != Code::timeout) return ended.error();
    return because(Code::timeout,
                   fmt::format("NetPIPE over {} did not get from {} to {} bytes in {} s: is "
                               "somebody else on this machine?",
                               transport.name, stretch.from, stretch.to, stretch_limit_s));
}

Result<Curve> measure_mpi(const Cluster& cluster, const Transport& transport,
                          const Stretch& stretch) {
    return curve_of(transport, stretch, cluster.on("gn1", mpi_command(transport, stretch)));
}

// The receiver must listen before the transmitter calls, and says nothing: ask the kernel.
Status wait_for_listener(const Cluster& cluster, const std::string& node) {
    const int64_t deadline = monotonic_us() + 10 * second_us;
    while (monotonic_us() < deadline) {
        auto sockets = run(cluster.on(node, {"ss", "-Htlnp"}), 10);
        if (!sockets.ok()) return sockets.error();
        if (sockets->output.find("(\"NPtcp\"") != std::string::npos) return {};
    }
    return make_error(Code::timeout, "wait for NPtcp on", node);
}

Result<Curve> measure_tcp(const Cluster& cluster, const Transport& transport,
                          const Stretch& stretch) {
    std::vector<std::string> receive{"NPtcp"};
    for (const std::string& word : netpipe_options(stretch, transport.pattern))
        receive.push_back(word);
    std::vector<std::string> transmit = receive;
    transmit.insert(transmit.begin() + 1, {"-h", transport.receiver});
    auto receiver = Command::start(cluster.on(transport.receiver, receive));
    if (!receiver.ok()) return receiver.error();
    GHOST_TRY(wait_for_listener(cluster, transport.receiver));
    return curve_of(transport, stretch, cluster.on("gn1", transmit));
}

}  // namespace

std::optional<Sample> parse_line(const std::string& line) {
    int number = 0;
    long bytes = 0;
    long times = 0;
    double mbps = 0;
    double usec = 0;
    if (std::sscanf(line.c_str(), " %d: %ld bytes %ld times --> %lf Mbps in %lf usec", &number,
                    &bytes, &times, &mbps, &usec) != 5 ||
        mbps <= 0) {
        return std::nullopt;
    }
    // NetPIPE's megabit is 2^20 bits
    return Sample{bytes, static_cast<double>(bytes) * 8 / (mbps * 1048576) * 1e6};
}

std::vector<std::string> netpipe_options(const Stretch& stretch, Pattern pattern) {
    std::vector<std::string> words{
        "-p", "0",        "-l", std::to_string(stretch.from), "-u", std::to_string(stretch.to),
        "-o", "/dev/null"};
    if (stretch.repeats > 0) {
        words.push_back("-n");
        words.push_back(std::to_string(stretch.repeats));
    }
    if (pattern == Pattern::stream) words.push_back("-s");
    return words;
}

std::vector<std::string> mpi_command(const Transport& transport, const Stretch& stretch) {
    std::vector<std::string> words{"mpirun", "-np", "2"};
    words.insert(words.end(), transport.mpirun.begin(), transport.mpirun.end());
    words.push_back("NPopenmpi");
    for (const std::string& word : netpipe_options(stretch, transport.pattern))
        words.push_back(word);
    return words;
}

Result<Curve> measure(const Cluster& cluster, const Transport& transport,
                      const std::vector<Stretch>& stretches) {
    Curve whole;
    for (const Stretch& stretch : stretches) {
        auto part = transport.mpirun.empty() ? measure_tcp(cluster, transport, stretch)
                                             : measure_mpi(cluster, transport, stretch);
        if (!part.ok()) return part.error();
        whole.insert(part->begin(), part->end());
    }
    return whole;
}

namespace {

// For each size in all curves, `chosen` of the sorted times.
Curve of_each(const std::vector<Curve>& curves, double (*chosen)(const std::vector<double>&)) {
    Curve result;
    if (curves.empty()) return result;
    for (const auto& [bytes, first] : curves[0]) {
        std::vector<double> values;
        for (const Curve& curve : curves) {
            if (auto found = curve.find(bytes); found != curve.end()) {
                values.push_back(found->second);
            }
        }
        if (values.size() != curves.size()) continue;
        std::sort(values.begin(), values.end());
        result[bytes] = chosen(values);
    }
    return result;
}

}  // namespace

Curve median(const std::vector<Curve>& curves) {
    return of_each(curves, [](const std::vector<double>& sorted) {
        const size_t half = sorted.size() / 2;
        return sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    });
}

Curve least(const std::vector<Curve>& curves) {
    return of_each(curves, [](const std::vector<double>& sorted) { return sorted.front(); });
}

Curve speedup(const Curve& curve, const Curve& reference) {
    Curve ratios;
    for (const auto& [bytes, usec] : curve) {
        if (auto found = reference.find(bytes); found != reference.end()) {
            ratios[bytes] = found->second / usec;
        }
    }
    return ratios;
}

Curve speedup_in_turns(const std::vector<Curve>& curves, const std::vector<Curve>& references) {
    std::vector<Curve> ratios;
    for (size_t turn = 0; turn < std::min(curves.size(), references.size()); ++turn)
        ratios.push_back(speedup(curves[turn], references[turn]));
    return median(ratios);
}

double geometric_mean(const Curve& ratios) {
    if (ratios.empty()) return 0;
    double sum = 0;
    for (const auto& [bytes, ratio] : ratios) sum += std::log(ratio);
    return std::exp(sum / static_cast<double>(ratios.size()));
}

double mbps(int64_t bytes, double usec) {
    return static_cast<double>(bytes) * 8 / usec;
}

std::string slowest(const Curve& ratios) {
    const auto least = std::min_element(ratios.begin(), ratios.end(),
                                        [](auto& a, auto& b) { return a.second < b.second; });
    if (least == ratios.end()) return "not measured";
    return fmt::format("{:.2f} at {} bytes", least->second, least->first);
}

}  // namespace ghost::bench
