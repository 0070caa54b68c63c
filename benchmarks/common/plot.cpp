// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/common/plot.hpp"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "benchmarks/common/command.hpp"

namespace ghost::bench {
namespace {

namespace fs = std::filesystem;

// gnuplot reads the curves from data blocks in the script itself: bytes, Mbit/s, µs.
std::string data_blocks(const std::vector<Drawn>& drawn) {
    std::string data;
    for (size_t i = 0; i < drawn.size(); ++i) {
        data += fmt::format("$c{} << EOD\n", i);
        for (const auto& [bytes, usec] : drawn[i].curve)
            data += fmt::format("{} {} {}\n", bytes, mbps(bytes, usec), usec);
        data += "EOD\n";
    }
    return data;
}

std::string plot(const std::vector<Drawn>& drawn, int column) {
    std::string plots;
    for (size_t i = 0; i < drawn.size(); ++i) {
        if (drawn[i].curve.empty()) continue;
        plots += fmt::format("{}$c{} using 1:{} with {} title \"{}\"", plots.empty() ? "" : ", ", i,
                             column, drawn[i].points ? "linespoints pt 7 ps 0.5" : "lines lw 2",
                             drawn[i].name);
    }
    return "plot " + plots + "\n";
}

std::string script(const Picture& picture, const std::string& svg) {
    std::string text = fmt::format(
        "set terminal svg size {},600 background rgb 'white'\nset output '{}'\n"
        "set logscale xy\nset format x '10^{{%T}}'\nset grid\nset key left top\n"
        "set xlabel 'message size, bytes'\nset ylabel 'Mbit/s'\n{}",
        picture.times ? 1600 : 960, svg, data_blocks(picture.drawn));
    if (!picture.times)
        return text + fmt::format("set title '{}'\n", picture.title) + plot(picture.drawn, 2);
    return text + fmt::format("set multiplot layout 1,2 title '{}'\n", picture.title) +
           plot(picture.drawn, 2) + "set ylabel 'µs for one way'\n" + plot(picture.drawn, 3) +
           "unset multiplot\n";
}

Status write(const std::string& path, const std::string& text) {
    std::error_code failed;
    fs::create_directories(fs::absolute(path).parent_path(), failed);
    std::ofstream file(path);
    file << text;
    file.close();
    return file ? Status() : make_error(Code::io, "write", path);
}

}  // namespace

Status draw(const Picture& picture, const std::string& svg) {
    const std::string path = svg + ".gnuplot";
    GHOST_TRY(write(path, script(picture, svg)));
    auto ended = run({"gnuplot", path}, 60);
    std::remove(path.c_str());
    if (!ended.ok()) return ended.error();
    if (ended->status != 0) return make_error(Code::io, "draw", svg, ended->output);
    return {};
}

Status write_json(const nlohmann::json& value, const std::string& path) {
    return write(path, value.dump(2) + "\n");
}

std::string built(const std::string& path) {
    // the program is two folders down
    const auto folder = fs::read_symlink("/proc/self/exe").parent_path();
    return (folder / "../.." / path).lexically_normal().string();
}

}  // namespace ghost::bench
