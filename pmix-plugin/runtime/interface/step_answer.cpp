#include "pmix-plugin/runtime/interface/step_answer.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace ghost::plugin {
namespace {

void add_named(std::vector<Json>& list, Json entry) {
    if (list.size() < StepAnswer::most_named) list.push_back(std::move(entry));
}

void take(std::vector<Json>& to, std::vector<Json>&& from, size_t most) {
    for (Json& item : from) {
        if (to.size() >= most) return;
        to.push_back(std::move(item));
    }
}

std::vector<Json> list_of(const Json& message, const char* key) {
    const Json* list = field(message, key);
    if (list == nullptr || !list->is_array()) return {};
    return {list->begin(), list->end()};
}

}  // namespace

void StepAnswer::add_busy(RankId rank, const std::string& why) {
    ++busy_ranks;
    add_named(busy, {{"rank", rank}, {"why", why}});
}

void StepAnswer::add_failed(RankId rank, const std::string& node, const std::string& stage,
                            const std::string& why) {
    ++failed_ranks;
    add_named(failed, {{"rank", rank}, {"node", node}, {"stage", stage}, {"why", why}});
}

void StepAnswer::merge(StepAnswer other) {
    ranks += other.ranks;
    busy_ranks += other.busy_ranks;
    failed_ranks += other.failed_ranks;
    own_folders += other.own_folders;
    own_seconds += other.own_seconds;
    bytes += other.bytes;
    pause_us = std::max(pause_us, other.pause_us);
    take(busy, std::move(other.busy), most_named);
    take(failed, std::move(other.failed), most_named);
    take(rows, std::move(other.rows), SIZE_MAX);
}

void StepAnswer::write(Json& message) && {
    message["ranks"] = ranks;
    message["sums"] = {
        {"busy", busy_ranks},         {"failed", failed_ranks}, {"own_folders", own_folders},
        {"own_seconds", own_seconds}, {"bytes", bytes},         {"pause_us", pause_us}};
    message["busy"] = std::move(busy);
    message["failed"] = std::move(failed);
    message["rows"] = std::move(rows);
}

StepAnswer StepAnswer::read(const Json& message) {
    StepAnswer answer;
    answer.ranks = number(message, "ranks");
    answer.busy = list_of(message, "busy");
    answer.failed = list_of(message, "failed");
    answer.rows = list_of(message, "rows");
    const Json* sums = field(message, "sums");
    if (sums != nullptr) {
        answer.busy_ranks = number(*sums, "busy");
        answer.failed_ranks = number(*sums, "failed");
        answer.own_folders = number(*sums, "own_folders");
        answer.own_seconds = number(*sums, "own_seconds");
        answer.bytes = number(*sums, "bytes");
        answer.pause_us = signed_number(*sums, "pause_us");
    }
    // A list says something even if the sum is missing.
    answer.busy_ranks = std::max<uint64_t>(answer.busy_ranks, answer.busy.size());
    answer.failed_ranks = std::max<uint64_t>(answer.failed_ranks, answer.failed.size());
    return answer;
}

std::string describe(const std::vector<Json>& list, uint64_t all) {
    std::string out;
    for (const Json& item : list) {
        out += out.empty() ? "" : "; ";
        out += fmt::format("rank {}", number(item, "rank"));
        if (std::string node = text(item, "node"); !node.empty()) out += " at " + node;
        if (std::string stage = text(item, "stage"); !stage.empty()) out += ": " + stage;
        out += ": " + text(item, "why");
    }
    if (all > list.size()) out += fmt::format("; and {} more ranks", all - list.size());
    return out;
}

}  // namespace ghost::plugin
