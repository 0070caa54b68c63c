// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ranks.hpp"

#include <charconv>
#include <optional>

namespace ghost::tools {
namespace {

constexpr uint32_t most_ranks = 1 << 20;  // of one range

std::optional<uint32_t> number(std::string_view text) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<std::vector<uint32_t>> parse_ranks(const std::vector<std::string>& words) {
    std::vector<uint32_t> out;
    for (const std::string& word : words) {
        const std::string_view text = word;
        const size_t dash = text.find('-');
        const auto first = number(text.substr(0, dash));
        const auto last = dash == text.npos ? first : number(text.substr(dash + 1));
        if (!first || !last || *last < *first || *last - *first >= most_ranks)
            return make_error(Code::invalid, "understand ranks", word,
                              "they are written like 1,4-7");
        for (uint64_t rank = *first; rank <= *last; ++rank)
            out.push_back(static_cast<uint32_t>(rank));
    }
    return out;
}

}  // namespace ghost::tools
