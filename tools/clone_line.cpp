// SPDX-License-Identifier: BSD-3-Clause
#include "tools/clone_line.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/json.hpp"
#include "base/paths.hpp"
#include "base/await.hpp"
#include "tools/paths.hpp"
#include "tools/plain.hpp"
#include "tools/remote.hpp"

namespace ghost::tools {
namespace {

Result<std::vector<std::string>> command_for(const std::string& node) {
    if (is_here(node)) return std::vector<std::string>{own_program(), "receive"};
    return remote_words(node, shell_quote(own_program()) + " receive");
}

bool is_object(const std::string& line) {
    return line.starts_with('{') && nlohmann::json::accept(line);
}

}  // namespace

Result<CloneLine> CloneLine::start(const std::string& node) {
    const auto words = command_for(node);
    if (!words) return words.error();
    int down[2], up[2];
    if (::pipe2(down, O_CLOEXEC) != 0) return sys_error("make a pipe");
    Fd their_in(down[0]), our_out(down[1]);
    if (::pipe2(up, O_CLOEXEC) != 0) return sys_error("make a pipe");
    Fd our_in(up[0]), their_out(up[1]);
    auto child = Child::start({.argv = *words,
                               .stdio = {their_in.get(), their_out.get(), inherited},
                               .place = ChildRequest::Place::here,
                               .signals = ChildRequest::Signals::unblocked});
    if (!child) return child.error();
    CloneLine out(std::move(our_in), std::move(our_out), from_receiver);
    out.child_ = child->release();
    return out;
}

Status CloneLine::send_text(const std::string& text) const {
    for (size_t at = 0; at < text.size();) {
        const ssize_t put = ::write(out_.get(), text.data() + at, text.size() - at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return sys_error("talk to the other node", {}, Code::peer_lost);
        at += static_cast<size_t>(put);
    }
    return {};
}

Result<schema::Received> CloneLine::receive(int timeout_ms) {
    const int64_t limit = monotonic_us() + int64_t{timeout_ms} * 1000;
    for (;;) {
        const auto end = rest_.find('\n');
        if (end != std::string::npos) {
            const std::string line = rest_.substr(0, end);
            rest_.erase(0, end + 1);
            if (!is_object(line)) continue;  // what a login script prints
            std::string complaint;
            auto message = reader_.read(line, complaint);
            if (message) return std::move(*message);
            return make_error(Code::corrupt, "understand the other node", complaint);
        }
        if (!await_readable_until(in_.get(), limit))
            return make_error(Code::timeout, "hear from the other node");
        std::array<char, 65536> buffer;
        const ssize_t got = ::read(in_.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return make_error(Code::peer_lost, "hear from the other node", {},
                              "it has ended the line");
        rest_.append(buffer.data(), static_cast<size_t>(got));
    }
}

void CloneLine::close() {
    in_.reset();
    out_.reset();
    if (child_ > 0) ::waitpid(std::exchange(child_, 0), nullptr, 0);
}

}  // namespace ghost::tools
