// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/output_meter.hpp"

#include <algorithm>

namespace ghost::plugin {

void OutputMeter::skip_to(const std::optional<OutputPlace>& shown) {
    skips_to_.reset();
    if (place_ && shown && place_->is_before(*shown)) skips_to_ = shown;
}

size_t OutputMeter::pass(std::string_view data) {
    const size_t skipped = skips_to_ ? to_skip(data) : 0;
    if (place_) *place_ += OutputPlace::of(data);
    given_ += OutputPlace::of(data.substr(skipped));
    return skipped;
}

// Whole lines, then of the line that was shown in part as much as of it was; a shorter one ends it.
size_t OutputMeter::to_skip(std::string_view data) {
    uint64_t lines = place_->lines, rest = place_->rest;
    size_t at = 0;
    for (; lines < skips_to_->lines; ++lines, rest = 0) {
        const size_t end = data.find('\n', at);
        if (end == data.npos) return data.size();
        at = end + 1;
    }
    const size_t wanted = skips_to_->rest > rest ? skips_to_->rest - rest : 0;
    const size_t line = std::min(data.find('\n', at), data.size()) - at;
    const size_t part = std::min(wanted, line);
    if (part == wanted || at + part < data.size()) skips_to_.reset();
    return at + part;
}

}  // namespace ghost::plugin
